"""A folder of this machine as a source. The operator's own disk, but its content is checked like any other.

Links inside are refused, because what they point at is not the skill's. The folder itself may be one.
"""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from skillbus.errors import BadBundle, SourceUnavailable
from skillbus.skills import tree
from skillbus.skills.bundle import BundleFile
from skillbus.skills.rules import MAX_BYTES
from skillbus.skills.sources.source import Access, Fetched


class FolderSource:
    """``/absolute/folder``: relative ones were made absolute when the manifest was read."""

    def accepts(self, url: str) -> bool:
        """Whether it is a path."""
        return url.startswith("/")

    def fetch(self, url: str, access: Access) -> Fetched:
        """The folder's files.

        Raises:
            SourceUnavailable: it is not there, or cannot be read.
            BadArchive, BadBundle: something in it cannot be a skill's.
        """
        try:
            folder = os.open(url, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceUnavailable(f"the folder {url} cannot be opened ({error.strerror}): check the path") from None
        try:
            return Fetched(_read(folder), "", PurePosixPath(url).name)
        except OSError as error:
            raise SourceUnavailable(f"the folder {url} cannot be read ({error.strerror})") from None
        finally:
            os.close(folder)


def _read(folder: int) -> dict[str, BundleFile]:
    files: dict[str, BundleFile] = {}
    missing = MAX_BYTES
    for path, file in tree.files_in(folder):
        data = tree.read_at_most(file, missing + 1)
        missing -= len(data)
        if missing < 0:
            raise BadBundle(f"it is bigger than {MAX_BYTES // 1024 // 1024} MiB")
        files[path] = BundleFile(data, tree.is_executable(file))
    return files
