"""Forms of a browser: ``application/x-www-form-urlencoded``, read by the standard library. No files, no multipart."""

from __future__ import annotations

from urllib.parse import parse_qsl

from fastapi import Request

from skillbus.console.problems import Refused

_BODY_LIMIT = 64 * 1024
_FIELDS_LIMIT = 50


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form; of a field that comes twice, the first.

    Raises:
        Refused: 413, it is longer than 64 KiB; 400, it is no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refused(400, "this address takes a form of the page: send JSON to api/v1/…")
    body = await request.body()
    if len(body) > _BODY_LIMIT:
        raise Refused(413, f"a form has {_BODY_LIMIT} bytes at most")
    try:
        text = body.decode("utf-8", "replace")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_FIELDS_LIMIT, errors="replace")
    except ValueError:
        raise Refused(400, "this form cannot be read") from None
    return dict(reversed(pairs))
