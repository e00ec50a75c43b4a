"""What every request and every answer passes: who sent it really, under which path it is shown, and the headers.

Plain ASGI, for a stream must pass untouched. ``X-Forwarded-*`` is believed from the proxies that are named alone; the
client's address and scheme are uvicorn's reading of it.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
)

HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""What every answer bears."""


class SecurityHeaders:
    """ASGI: every answer bears them, errors included. Nothing is cached that does not say so itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        await self._app(scope, receive, with_headers)


class BehindProxy:
    """ASGI: the path prefix that is set, or that a trusted proxy names; then its word on client and scheme."""

    def __init__(self, app: ASGIApp, root_path: str, trusted: tuple[str, ...]) -> None:
        self._root_path = root_path.rstrip("/")
        self._networks = [ip_network(text, strict=False) for text in trusted]
        self._app: ASGIApp = ProxyHeadersMiddleware(app, list(trusted)) if trusted else app  # type: ignore[arg-type,assignment]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            prefix = Headers(scope=scope).get("x-forwarded-prefix", "") if self._is_trusted(scope) else ""
            is_path = re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", prefix)
            root_path = prefix.rstrip("/") if is_path else self._root_path
            path = scope["path"]
            if root_path and path != root_path and not path.startswith(f"{root_path}/"):
                path = root_path + path  # as ASGI has it: the path holds the prefix, whether the proxy left it or not
            scope = {**scope, "root_path": root_path, "path": path}
        await self._app(scope, receive, send)

    def _is_trusted(self, scope: Scope) -> bool:
        try:
            address = ip_address(scope["client"][0])
        except (TypeError, ValueError):
            return False
        return any(address in network for network in self._networks)
