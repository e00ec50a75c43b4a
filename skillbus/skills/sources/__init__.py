"""Every kind of source: each module here that holds a ``SOURCE``. A new kind is a new file, and nothing else."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from skillbus.errors import BadManifest
from skillbus.skills.sources.source import Access, Source


@cache
def sources() -> dict[str, Source]:
    """Each source by the name of its file; those that take almost anything last."""
    from pkgutil import iter_modules

    modules = {info.name: import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__)}
    found: dict[str, Source] = {name: module.SOURCE for name, module in modules.items() if hasattr(module, "SOURCE")}
    return dict(sorted(found.items(), key=lambda item: (item[1].general, item[0])))


def source_named(name: str) -> Source:
    """The source in that file, and no other is imported: the child needs one.

    Raises:
        BadManifest: there is none.
    """
    where = f"{__name__}.{name}"
    try:
        source: Source | None = getattr(import_module(where), "SOURCE", None)
    except ModuleNotFoundError as error:
        if error.name != where:
            raise
        source = None
    if source is None:
        raise BadManifest(f"there is no source {name!r}")
    return source


def source_of(url: str, access: Access) -> Source:
    """The source that takes ``url``.

    Raises:
        BadManifest: none does.
    """
    for source in sources().values():
        if source.accepts(url, access):
            return source
    raise BadManifest(
        "no source takes such a url: use https://github.com/…, git+https://…, an archive over https, or a folder"
    )
