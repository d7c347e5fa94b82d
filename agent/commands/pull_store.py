"""The store of `pull`: one model in a directory that a person names.

    <parent>/<name>/...                              the model
    <parent>/.<name>.localmodel/<key>/manifest.json  its manifest; see agent.disk.store
    <parent>/.<name>.localmodel/<key>/files/...      an unfinished download

The directory belongs to its user: its files are deleted only with --force.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.disk.files import delete_file, paths_below
from agent.disk.on_disk import Found
from agent.disk.root import BusyError, Root, StoreError
from agent.disk.store import Store
from agent.structs.failures import public_uri

if TYPE_CHECKING:
    from pathlib import Path

    from agent.disk.on_disk import OnDisk
    from agent.structs.manifest import Manifest

_LOCK = "lock"


class PullStore(Store):
    """A store with one model, whose files are in the named directory."""

    def __init__(self, directory: Path) -> None:
        parent = directory.parent
        private = parent / f".{directory.name}.localmodel"
        super().__init__(parent, folders=Root(parent, parent, private, only=directory))
        self.directory = directory

    def open(self) -> None:
        """Lock the directory against other pulls. Raises StoreError."""
        self._check_directory()
        if not self._folders.private.exists() and self._names():
            raise StoreError(_foreign(self.directory))
        try:
            super().open()
        except BusyError:
            raise StoreError(f"another pull into {self.directory} is under way") from None
        except StoreError as error:
            raise StoreError(f"cannot pull into {self.directory}: {error}") from None

    def close(self) -> None:
        """Unlock the directory; delete the private folder if it has no manifest or staging."""
        private = self._folders.private
        if self._lock is not None and [path.name for path in private.iterdir()] == [_LOCK]:
            delete_file(private / _LOCK)
            with suppress(OSError):
                self._folders.private.rmdir()
        super().close()

    def manifest(self, key: str) -> Manifest | None:
        """The manifest of the model in the directory; None if there is none.

        Raises StoreError if it cannot be read.
        """
        return self._look(key).manifest

    def _look(self, key: str) -> OnDisk:
        copy = self.inspect(key)
        if copy.is_unreadable:
            raise StoreError(f"{self.directory} cannot be read: {copy.problem}")
        return copy

    def prepare(self, key: str, *, force: bool) -> bool:
        """Whether the model is published already; otherwise its download may begin.

        Raises StoreError if other files are in the directory.
        """
        self.recover()
        self._remove_other_keys(key)
        copy = self._look(key)
        names = self._names()
        if not names:
            return False
        if not copy.is_published or copy.manifest is None:
            raise StoreError(_foreign(self.directory))
        if force:
            extra = sorted(names - {file.path for file in copy.manifest.files})
            if extra:
                raise StoreError(
                    f"{self.directory} has {len(extra)} files that were not pulled, such as "
                    f"{extra[0]!r}, so it is not replaced: move them away"
                )
            return False
        if copy.found is Found.DAMAGED:
            raise StoreError(
                f"{self.directory} has changed since it was pulled ({copy.problem}): use --force "
                "to replace it"
            )
        return True

    def _remove_other_keys(self, key: str) -> None:
        """Remove the staging of other URIs.

        Raises StoreError if a copy of one is published, or cannot be read: all keys have the same
        directory. The folders beside it are none of a pull's business.
        """
        for other in self._keys():
            if other == key:
                continue
            copy = self._look(other)
            if copy.is_published and self._names():
                uri = public_uri(copy.manifest.uri) if copy.manifest else "another model"
                raise StoreError(
                    f"{self.directory} holds {uri}, which was pulled before: name another "
                    "directory, or delete this one first"
                )
            # Of this URI only an abandoned download is left.
            self.remove(other)

    def _names(self) -> set[str]:
        """The paths of all files in the directory, relative to it."""
        if self.directory.is_symlink() or self.directory.is_file():
            return {"."}
        return set(paths_below(self.directory))

    def _check_directory(self) -> None:
        if os.path.ismount(self.directory) or self.directory == self.directory.parent:
            raise StoreError(
                f"{self.directory} is a mount point, which a rename cannot replace: name a "
                "directory below it"
            )
        with suppress(FileNotFoundError):
            if self.directory.samefile(os.curdir):
                raise StoreError(
                    f"{self.directory} is the current directory, which a rename would replace: "
                    "name a directory below it"
                )


def _foreign(directory: Path) -> str:
    return (
        f"{directory} exists and was not made by a pull, so it is left alone: name another "
        "directory, or move this one away"
    )
