"""An archive's members, whatever its kind -> the landings that want them.

Every member's name is checked, wanted or not, because a hostile one anywhere says enough about the whole archive.
What else may be wrong with a member (a link, a device, a name that collides with another) is the fault of the skill
it lies in; where no skill is wanted it is skipped, for real repositories hold such things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto

from skillbus.errors import (
    BadBundle,
    BrokenArchive,
    DeviceInArchive,
    LinkInArchive,
    NameEscapes,
    NameNotUtf8,
    NamesCollide,
    SetuidInArchive,
    SkillbusError,
    SparseInArchive,
)
from skillbus.skills.landing import Incoming, Landing, check_name
from skillbus.skills.rules import folded_name


class Top(Enum):
    """What an archive has at its top."""

    ONE = auto()
    """All lies in one folder, which does not count."""

    NONE = auto()
    """All lies where it belongs."""

    EITHER = auto()
    """Who knows. One folder with everything in it does not count, unless the skill turns out to be beside it."""


class Kind(Enum):
    """What a member is."""

    FILE = auto()
    FOLDER = auto()
    LINK = auto()
    DEVICE = auto()
    SETUID = auto()
    SPARSE = auto()


class Member:
    """One member of an archive, as its header has it.

    Attributes:
        path: its name, not checked; ``/`` between parts, none at the end.
        size: bytes of data that the header claims.
        executable: whether anybody may execute it.
    """

    __slots__ = ("executable", "kind", "path", "size")

    def __init__(self, name: bytes, kind: Kind, size: int, mode: int) -> None:
        """``name`` as it lies in the header; ``mode`` the bits of permission.

        Raises:
            NameNotUtf8: it is not.
        """
        try:
            path = name.decode()
        except UnicodeDecodeError:
            raise NameNotUtf8(f"the name {name[:120]!r} is not UTF-8") from None
        while path.startswith("./"):
            path = path[2:]
        if path == "." or path.endswith("/"):
            path = path[:-1]
        self.path = path
        self.kind = Kind.SETUID if kind is Kind.FILE and mode & 0o6000 else kind
        self.size = size
        self.executable = mode & 0o111 != 0


_MAX_HEADS = 4096

Data = Callable[[], Iterable[bytes | memoryview]]
Routes = list[tuple[Landing, str]]


class _View:
    """The archive seen from one folder in it: which landing wants what."""

    def __init__(self, wanted: Mapping[str, Landing]) -> None:
        self._wanted = wanted
        self._came: set[str] = set()
        self._above = {above for path in wanted for above in _prefixes(path)[:-1]}
        self._folded = {folded_name(path): path for path in (*self._above, *wanted) if path}
        self._levels = max((path.count("/") + 1 for path in wanted if path), default=0)
        self._twins: dict[str, str] = {}
        self._heads: dict[str, list[tuple[Landing, int]]] = {}

    def routes(self, path: str, kind: Kind) -> Routes:
        """Who wants the member at ``path``, and as what."""
        parts = path.split("/", self._levels)
        if len(parts) <= self._levels:
            self._note(path, kind)
            parts.pop()
        else:
            parts[-1:] = ()
        head = "/".join(parts)
        found = self._heads.get(head)
        if found is None:
            if len(self._heads) > _MAX_HEADS:
                self._heads.clear()
            found = self._heads[head] = self._under(head)
        return [(landing, path[start:]) for landing, start in found]

    def _under(self, head: str) -> list[tuple[Landing, int]]:
        """The landings that want what lies under ``head``, and where in a path their part of it begins."""
        found = []
        for folder in ("", *_prefixes(head)):
            if folder in self._wanted:
                self._came.add(folder)
                found.append((self._wanted[folder], len(folder) + 1 if folder else 0))
            self._note_twin(folder)
        return found

    def _note(self, path: str, kind: Kind) -> None:
        """A member that may be a wanted folder itself, or one above it."""
        self._note_twin(path)
        if path not in self._wanted and path not in self._above:
            return
        if kind is Kind.FOLDER:
            self._came |= {path} & self._wanted.keys()
            return
        for wanted, landing in self._wanted.items():
            if wanted == path or wanted.startswith(path + "/"):
                landing.refuse(_fault(path, kind) or BadBundle(f"{path!r} is a file and no folder"))

    def _note_twin(self, path: str) -> None:
        meant = self._folded.get(folded_name(path), path)
        if meant != path:
            self._twins[meant] = path

    def go_on(self, before: _View | None, top: str) -> None:
        """Know what was seen when all there was lay in ``top``."""
        if before:
            self._came |= before._came
            self._twins |= before._twins
        self._came |= {path for path, landing in self._wanted.items() if not path and not landing.is_untouched}
        self._note_twin(top)

    def end(self) -> None:
        """Refuse those for whom nothing came, or whose own folder has a double."""
        for path, landing in self._wanted.items():
            twin = next((self._twins[above] for above in _prefixes(path) if above in self._twins), "")
            if path not in self._came:
                hint = f": is it {twin!r}?" if twin else ": the path in the url may be wrong"
                landing.refuse(
                    BadBundle(f"there is no folder {path!r} in it{hint}" if path else "there is nothing in it")
                )
            elif twin:
                landing.refuse(NamesCollide(f"{path!r} and {twin!r} differ by case or Unicode form alone"))


class Placing:
    """Members in, files in landings out."""

    def __init__(self, landings: Mapping[str, Landing], top: Top) -> None:
        self._landings = landings
        self._kind = top
        self._top: str | None = None
        self._outside: _View | None = _View(landings) if top is Top.NONE else None
        self._inside: _View | None = None
        self._shadows: dict[str, Landing] = {}
        self._busy: list[Landing] = []

    def take(self, member: Member, data: Data) -> None:
        """Hand a member to whoever wants it.

        Args:
            data: gives its bytes, once. Not called if nobody wants them.

        Raises:
            BadArchive: it is reason enough to take nothing of the archive.
            DiskRefused: the staging cannot be written.
        """
        path = member.path
        if not path:
            if member.kind is not Kind.FOLDER:
                raise NameEscapes("a member has no name")
            return
        check_name(path)
        if self._kind is not Top.NONE:
            self._look_at_top(path, member.kind)
        routes = self._outside.routes(path, member.kind) if self._outside else []
        if self._inside and "/" in path:
            routes += self._inside.routes(path.partition("/")[2], member.kind)
        if routes:
            self._deliver(routes, member, data)

    def end(self) -> None:
        """All members came.

        Raises:
            DiskRefused: the staging cannot be written.
        """
        if self._top is None and self._outside is None:
            self._outside = _View(self._landings)
        for view in (self._outside, self._inside):
            if view:
                view.end()
        for path, shadow in self._shadows.items():
            if self._landings[path].skill_file is None and shadow.skill_file is not None:
                self._landings[path].adopt(shadow)

    def rest(self) -> None:
        """Close what is kept open between members."""
        for landing in self._busy:
            landing.rest()

    def _look_at_top(self, path: str, kind: Kind) -> None:
        top, slash, _ = path.partition("/")
        if self._top is None:
            self._top = top
            self._look_inside(top)
        if self._inside and (top != self._top or not (slash or kind is Kind.FOLDER)):
            self._look_outside(self._top)

    def _look_inside(self, top: str) -> None:
        """The first member came. A wanted path that begins as it does may be meant from outside or from inside."""
        wanted = dict(self._landings)
        if self._kind is Top.EITHER:
            doubtful = {path: landing for path, landing in wanted.items() if path.split("/")[0] == top}
            self._shadows = {path: landing.beside() for path, landing in doubtful.items()}
            self._outside = _View(doubtful) if doubtful else None
        self._inside = _View(wanted | self._shadows)

    def _look_outside(self, top: str) -> None:
        """Something lies beside the first folder: so it is a part of the paths."""
        if self._kind is Top.ONE:
            raise BrokenArchive("not all of it lies in one folder")
        for path, landing in self._landings.items():
            if not path and not landing.is_empty:
                landing.nest(top)
            elif path not in self._shadows and not landing.is_untouched:
                landing.restart()
        before, self._outside = self._outside, _View(self._landings)
        self._outside.go_on(before, top)
        self._inside = None
        self._shadows = {}

    def _deliver(self, routes: Routes, member: Member, data: Data) -> None:
        if len(routes) != len(self._busy) or routes[0][0] is not self._busy[0]:
            self.rest()
            self._busy = [landing for landing, _ in routes]
        if member.kind is Kind.FILE:
            _write(routes, member, data)
            return
        for landing, path in routes:
            fault = _fault(path, member.kind)
            if fault:
                landing.refuse(fault)
            elif path:
                landing.add_folder(path)


def _write(routes: Routes, member: Member, data: Data) -> None:
    files: list[Incoming] = []
    try:
        for landing, path in routes:
            file = landing.begin(path, executable=member.executable)
            if file is not None:
                files.append(file)
        if not files:
            return
        for chunk in data():
            for file in files:
                file.add(chunk)
        for file in files:
            file.end()
    finally:
        for file in files:
            file.close()


def _prefixes(path: str) -> list[str]:
    """``a/b`` -> ``a``, ``a/b``."""
    parts = path.split("/") if path else []
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _fault(path: str, kind: Kind) -> SkillbusError | None:
    name = repr(path)
    if kind is Kind.LINK:
        return LinkInArchive(f"{name} is a link: only files and folders are taken")
    if kind is Kind.DEVICE:
        return DeviceInArchive(f"{name} is a device or a pipe: only files and folders are taken")
    if kind is Kind.SETUID:
        return SetuidInArchive(f"{name} is setuid or setgid")
    if kind is Kind.SPARSE:
        return SparseInArchive(f"{name} is a sparse file, which may claim any size")
    return None
