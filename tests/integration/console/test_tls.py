"""``skillbus serve --certfile --keyfile``: the whole console over TLS, and files that do not fit told in a sentence."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.consoles import fails_to_start, serving
from tests.fakes.git_host import Certificate, certificate
from tests.integration.console.apis import TOKENS, write_tokens
from tests.servers import RealServer


@pytest.fixture
def pair(tmp_path: Path) -> Certificate:
    """A chain and key for 127.0.0.1, by an authority that this machine does not know."""
    return certificate(tmp_path / "tls", "IP:127.0.0.1")


def test_page_api_and_stream(redis_server: RealServer, tmp_path: Path, pair: Certificate) -> None:
    """All answer over TLS; the browser's cookie is for TLS alone; who speaks plain HTTP to it is told nothing."""
    words = (
        "--tokens",
        str(write_tokens(tmp_path / "tokens")),
        "--certfile",
        str(pair.chain),
        "--keyfile",
        str(pair.key),
    )
    bearer = {"Authorization": f"Bearer {TOKENS['viewer']}"}
    with (
        serving(redis_server, tmp_path, *words) as console,
        httpx.Client(
            base_url=console.url, verify=ssl.create_default_context(cafile=str(pair.authority)), trust_env=False
        ) as client,
    ):
        assert console.url.startswith("https://")
        assert client.get("/api/v1/status", headers=bearer).status_code == 200
        with client.stream("GET", "/api/v1/events", headers=bearer) as events:
            assert next(line for line in events.iter_lines() if line.startswith("event: ")) == "event: snapshot"
        assert client.get("/").headers["Location"].endswith("/login")
        login = client.post("/login", data={"token": TOKENS["viewer"]}, headers={"Origin": console.url})
        cookie = login.headers["Set-Cookie"]
        assert {"Secure", "HttpOnly"} <= {part.strip() for part in cookie.split(";")}
        assert client.get("/").status_code == 200
        with pytest.raises(httpx.TransportError), httpx.Client(trust_env=False) as plain:
            plain.get(console.url.replace("https:", "http:"))


def _locked(pair: Certificate) -> list[str]:
    locked = pair.key.with_name("locked.pem")
    openssl = str(shutil.which("openssl"))
    words = ["pkey", "-in", str(pair.key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run([openssl, *words], check=True, capture_output=True)
    return ["--certfile", str(pair.chain), "--keyfile", str(locked)]


def _weak(pair: Certificate) -> list[str]:
    chain, key = pair.chain.with_name("weak.pem"), pair.chain.with_name("weak-key.pem")
    words = ["req", "-x509", "-newkey", "rsa:512", "-nodes", "-days", "2", "-subj", "/CN=weak"]
    openssl = str(shutil.which("openssl"))
    subprocess.run([openssl, *words, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    return ["--certfile", str(chain), "--keyfile", str(key)]


def _of_another(pair: Certificate) -> list[str]:
    return ["--certfile", str(pair.chain), "--keyfile", str(pair.authority.with_name("ca.key"))]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (lambda pair: ["--certfile", f"{pair.chain}.not"], ".not cannot be read: No such file or directory"),
        (lambda pair: ["--certfile", str(pair.chain)], "chain.pem holds no private key in PEM: give it with --keyfile"),
        (lambda pair: ["--certfile", str(pair.key)], "key.pem holds no certificate in PEM"),
        (_of_another, "ca.key is not the key of the certificate in"),
        (_weak, "weak.pem or its key is refused by OpenSSL ("),
        (_locked, "locked.pem: the key has a password: store it without"),
        (lambda pair: ["--keyfile", str(pair.key)], "a key without a certificate"),
    ],
)
def test_what_does_not_fit(
    redis_server: RealServer, tmp_path: Path, pair: Certificate, words: Callable[[Certificate], list[str]], said: str
) -> None:
    """Exit 2 and the file that is wrong; nobody is asked for a password, for nobody may be there."""
    tokens = write_tokens(tmp_path / "tokens")
    ended = fails_to_start(redis_server, tmp_path, "--tokens", str(tokens), *words(pair))
    assert (ended.code, said in ended.err, len(ended.err.splitlines())) == (2, True, 1), ended
