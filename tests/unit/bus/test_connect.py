"""Where Redis is: what a URL may say, and that every error of the client becomes one of ours."""

from __future__ import annotations

import pytest
from redis import exceptions as wire

from skillbus.bus.connect import Endpoint, error_of
from skillbus.errors import BadSettings, BusUnreachable


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://user:pa%2Fss@h:6380/3",
        "redis://h/0?db=1&username=u&password=p",
        "redis://[::1]:6379/0",
        "unix:///run/redis.sock?db=2",
        "rediss://h/0?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem&ssl_check_hostname=no",
    ],
)
def test_good_urls(url: str) -> None:
    """A client can be made of each, and what we guarantee is in force."""
    options = Endpoint(url, timeout_s=0.5).client("test").connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["decode_responses"], options["protocol"]) == (0.5, False, 2)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/0?decode_responses=True", "'decode_responses' in its query"),
        ("redis://h/0?encoding=latin-1", "'encoding' in its query"),
        ("redis://h/0?socket_timeout=99", "'socket_timeout' in its query.*leave it out"),
        ("redis://h/0?protocol=3", "'protocol' in its query"),
        ("redis://h/0?max_connections=9", "'max_connections' in its query"),
        ("redis://h/0?timeout=9&db=1", "'timeout' in its query"),
        ("redis://h/0?s3cret", "an option without a value"),
        ("redis://h/0?ssl_ca_certs=/s3cret", "'ssl_ca_certs' in its query.*write rediss://"),
        ("rediss://h/0?ssl_min_version=2", "'ssl_min_version' in its query"),
        ("redis://h?db=s3cret", "no number: write [?]db=0"),
        ("redis://h?db=-1", "no number"),
        ("redis://h/prod", "'redis://h/prod' is no Redis URL: its path is the number of a database"),
        ("redis://[::1", "cannot be read .*: write redis://host:6379/0"),
        ("redis://h:port/0", "is no Redis URL"),
        ("localhost:6379", "'localhost:6379' is no Redis URL, for it has no scheme: write redis://"),
        ("user:s3cret@localhost:6379?x=s3cret", "'localhost:6379' is no Redis URL, for it has no scheme"),
        ("", "has no scheme"),
    ],
)
def test_bad_urls_say_what_to_do(url: str, said: str) -> None:
    """A query would overrule what we guarantee. Never a ValueError, and no secret in the text."""
    with pytest.raises(BadSettings, match=said) as caught:
        Endpoint(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [ValueError("invalid literal"), RecursionError("deep"), wire.InvalidResponse("?"), KeyError("x"), Exception()],
)
def test_a_listener_outlives_every_error(error: Exception) -> None:
    """Whatever a corrupt reply makes the parser raise is a broken connection."""
    assert isinstance(error_of(error, Endpoint("redis://h")), BusUnreachable)
