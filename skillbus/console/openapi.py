"""``/openapi.json``: what FastAPI makes of the routes, with how one proves who one is, and what the stream sends."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi

from skillbus.console.guard import needs_any
from skillbus.console.shapes import EVENTS
from skillbus.console.tokens import Power, Principal

_TEMPLATE = "#/components/schemas/{model}"


def describe(app: FastAPI) -> None:
    """Serve it to everybody who may do anything here."""

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_json(who: Annotated[Principal, Depends(needs_any(*Power))]) -> dict[str, Any]:
        return app.openapi()

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation does it


def _schema(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    components = schema.setdefault("components", {})
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"token": []}]
    schema["servers"] = [{"url": "."}]
    known = components.setdefault("schemas", {})
    for event in EVENTS.values():
        found = event.model_json_schema(ref_template=_TEMPLATE)
        known |= {name: one for name, one in found.pop("$defs", {}).items() if name not in known}
        known.setdefault(event.__name__, found)
    return schema
