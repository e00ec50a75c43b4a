"""The latch's memory on disk: one file per scope that a pod was killed in (docs/protocol.md §3.8).

Written atomically and fsynced, so that a kill outlives the process, the machine, and Redis with all its data. A
tombstone that cannot be read still says that there was a kill: it holds the pod like one of an unknown epoch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from skillbus.core.latch import Obeyed
from skillbus.core.orders import KillRecord
from skillbus.core.scope import Fleet, Scope
from skillbus.errors import DiskRefused

_LIMIT = 16 * 1024


class Tombstones:
    """The tombstones of one pod, or of one keeper.

    ``~`` separates the parts of a file's name: no fleet, group or pod can contain it.
    """

    def __init__(self, state_dir: Path, pod_id: str) -> None:
        self._folder = state_dir / "tombstones"
        self._pod_id = pod_id

    def prepare(self) -> None:
        """Make the folder and prove that a tombstone could be written.

        Raises:
            DiskRefused: it could not. A pod that cannot remember a kill does not start.
        """
        probe = self._folder / f"~probe~{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(probe, b"{}")
            probe.unlink()
        except OSError as error:
            raise DiskRefused(
                f"the state folder {self._folder.parent} cannot hold tombstones ({error.strerror or error}): "
                "make it writable for this user, or set SKILLBUS_STATE_DIR to a folder that outlives the pod"
            ) from error

    def load(self, scopes: tuple[Scope, ...]) -> list[Obeyed]:
        """The kills of ``scopes`` that an earlier life of this pod was latched by."""
        found = []
        for scope in scopes:
            try:
                with self._path(scope).open("rb") as file:
                    raw = file.read(_LIMIT)
            except FileNotFoundError:
                continue
            except OSError as error:
                raw = str(error).encode()
            found.append(_parse(scope, raw))
        return found

    def load_all(self, fleet: Fleet) -> list[Obeyed]:
        """The same for every scope of the fleet: a keeper's, who belongs to none and keeps them all.

        Raises:
            OSError: the folder cannot be listed.
        """
        prefix = f"{fleet.name}~{self._pod_id}~"
        names = [path.stem.removeprefix(prefix) for path in self._folder.glob("*.json") if path.stem.startswith(prefix)]
        scopes = (fleet.of_suffix(_suffix(*name.partition("~")[::2])) for name in sorted(names))
        return self.load(tuple(scope for scope in scopes if scope is not None))

    def keep(self, obeyed: Obeyed) -> None:
        """Write the tombstone of ``obeyed``.

        Raises:
            OSError: the disk would not take it.
        """
        fields = {
            "fleet": obeyed.scope.fleet,
            "scope": obeyed.scope.label,
            "epoch": obeyed.epoch,
            "record": obeyed.record.to_bytes().decode(),
        }
        _write(self._path(obeyed.scope), json.dumps(fields, ensure_ascii=False).encode())

    def drop(self, scope: Scope) -> None:
        """Remove the tombstone of ``scope``: its kill was reset."""
        self._path(scope).unlink(missing_ok=True)
        _sync_folder(self._folder)

    def _path(self, scope: Scope) -> Path:
        return self._folder / f"{scope.fleet}~{self._pod_id}~{scope.kind}~{scope.name}.json"


def _suffix(kind: str, name: str) -> str:
    return f":{kind}:{name}" if name else ""


def _parse(scope: Scope, raw: bytes) -> Obeyed:
    try:
        fields = json.loads(raw)
        epoch = fields["epoch"]
        if epoch is not None and type(epoch) is not int:
            raise ValueError("the epoch is no number")
        return Obeyed(scope, KillRecord.parse(fields["record"].encode()), epoch, recorded=False)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        reason = "a tombstone that cannot be read says that this pod was killed"
        record = KillRecord.parse(raw).model_copy(update={"reason": reason, "via": "tombstone"})
        return Obeyed(scope, record, epoch=None, recorded=False)


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
