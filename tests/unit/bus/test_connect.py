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
        "rediss://h/0?ssl_cert_reqs=none&ssl_check_hostname=no",
        "redis+sentinel://h/mymaster",
        "redis+sentinel://user:pa%2Fss@h:26379,[::1]:26380/mymaster/3?sentinel_password=x&sentinel_username=y",
        "rediss+sentinel://h,h2/mymaster/0?ssl_cert_reqs=none&ssl_check_hostname=no",
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
        ("rediss://h/0?ssl_ca_certs=/nowhere/ca.pem", "ssl_ option that cannot be used: No such file"),
        ("rediss://h/0?ssl_cert_reqs=sometimes", "is no Redis URL|ssl_ option that cannot be used"),
        ("rediss://h/0?ssl_ciphers=s3cret", "ssl_ option that cannot be used"),
        ("redis+cluster://h/0", "is not supported: a fleet needs one master"),
        ("redis+sentinel://u:s3cret@h", "path is the master's name there"),
        ("redis+sentinel://u:s3cret@h/m/0/1", "path is the master's name there"),
        ("redis+sentinel://u:s3cret@h/m/prod", "ends in the number of a database"),
        ("redis+sentinel://u:s3cret@h,/m/0", "'' is no address of a Sentinel"),
        ("redis+sentinel://u:s3cret@h:0/m/0", "'h:0' is no address of a Sentinel"),
        ("redis+sentinel://h/m/0?ssl_ca_certs=/s3cret", "write rediss"),
        ("redis://h/0?sentinel_password=s3cret", "'sentinel_password' in its query, which cannot be set there"),
    ],
)
def test_bad_urls_say_what_to_do(url: str, said: str) -> None:
    """A query would overrule what we guarantee. Never a ValueError, and no secret in the text."""
    with pytest.raises(BadSettings, match=said) as caught:
        Endpoint(url)
    assert "s3cret" not in str(caught.value)


def test_a_sentinel_url_says_all() -> None:
    """Addresses, the master's name, two logins of which neither is shown, and the database."""
    url = "redis+sentinel://pod:s3cret@a,b:7,[::1]:8/main/3?sentinel_username=eye&sentinel_password=s3cret2"
    endpoint = Endpoint(url)
    sentinels = endpoint.sentinels
    assert sentinels is not None
    assert sentinels.addresses == (("a", 26379), ("b", 7), ("::1", 8))
    assert (sentinels.service, endpoint.database, endpoint.user) == ("main", 3, "pod")
    assert (sentinels.options["username"], sentinels.options["password"]) == ("eye", "s3cret2")
    assert endpoint.shown == "redis+sentinel://a,b:7,[::1]:8/main/3"
    assert "s3cret" not in repr(endpoint)
    options = endpoint.client("test").connection_pool.connection_kwargs
    assert (options["username"], options["password"], options["db"]) == ("pod", "s3cret", 3)


@pytest.mark.parametrize(
    "error",
    [ValueError("invalid literal"), RecursionError("deep"), wire.InvalidResponse("?"), KeyError("x"), Exception()],
)
def test_a_listener_outlives_every_error(error: Exception) -> None:
    """Whatever a corrupt reply makes the parser raise is a broken connection."""
    assert isinstance(error_of(error, Endpoint("redis://h")), BusUnreachable)
