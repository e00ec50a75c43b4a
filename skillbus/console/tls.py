"""The TLS chain and key that a console without a proxy shows: seen to fit before anything listens."""

from __future__ import annotations

import ssl
from pathlib import Path

from skillbus.errors import BadSettings


class _IsEncrypted(Exception):
    """The key wants a password. OpenSSL would ask for it at the terminal, and nobody may be there."""


def see_that_it_fits(chain: Path, key: Path | None) -> None:
    """Load both once, and forget them.

    Raises:
        BadSettings: with the file that is wrong, and what to do.
    """
    for path in (chain, key or chain):
        try:
            path.read_bytes()
        except OSError as error:
            raise BadSettings(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password=_refuse)
    except _IsEncrypted:
        raise BadSettings(
            f"{key or chain}: the key has a password: store it without (openssl pkey -in … -out …)"
        ) from None
    except ssl.SSLError as error:
        raise BadSettings(_why_not(chain, key, error.reason or "")) from None


def _refuse() -> str:
    raise _IsEncrypted


def _why_not(chain: Path, key: Path | None, reason: str) -> str:
    if reason == "KEY_VALUES_MISMATCH":
        return f"{key or chain} is not the key of the certificate in {chain}: give the pair that was made together"
    if not _has_certificate(chain):
        return f"{chain} holds no certificate in PEM: give --certfile the chain, the server's own certificate first"
    if b"PRIVATE KEY-----" in (key or chain).read_bytes():
        return f"{chain} or its key is refused by OpenSSL ({reason.lower().replace('_', ' ')}): give others"
    if key is None:
        return f"{chain} holds no private key in PEM: give it with --keyfile"
    return f"{key} holds no private key in PEM"


def _has_certificate(chain: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(chain)
    except ssl.SSLError:
        return False
    return True
