"""One model in a directory that a person has named.

    <parent>/<name>/...                              the model
    <parent>/.<name>.localmodel/<key>/manifest.json  what was pulled there; see agent.disk.store
    <parent>/.<name>.localmodel/<key>/files/...      a download that is under way

The directory is its user's: without being told to, nothing that is in it is taken away.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from localmodel.agent.disk.files import delete_file
from localmodel.agent.disk.on_disk import Found
from localmodel.agent.disk.root import BusyError, Root, StoreError
from localmodel.agent.disk.store import Store
from localmodel.agent.structs.failures import public_uri

if TYPE_CHECKING:
    from pathlib import Path

    from localmodel.agent.structs.manifest import Manifest

_LOCK = "lock"


class PullStore(Store):
    """A store whose only model is in the named directory."""

    def __init__(self, directory: Path) -> None:
        parent = directory.parent
        private = parent / f".{directory.name}.localmodel"
        super().__init__(parent, folders=Root(parent, parent, private, only=directory))
        self.directory = directory

    def open(self) -> None:
        """Be the only one that pulls there. Raises StoreError."""
        self._check_place()
        if not self._folders.private.exists() and self._names():
            raise StoreError(_foreign(self.directory))
        try:
            super().open()
        except BusyError:
            raise StoreError(f"another pull into {self.directory} is under way") from None
        except StoreError as error:
            raise StoreError(f"cannot pull into {self.directory}: {error}") from None

    def close(self) -> None:
        """Let another pull work there, and leave no trace if there is nothing to come back to."""
        if self._lock is not None and [path.name for path in self._folders.private.iterdir()] == [
            _LOCK
        ]:
            delete_file(self._folders.private / _LOCK)
            with suppress(OSError):
                self._folders.private.rmdir()
        super().close()

    def manifest(self, key: str) -> Manifest | None:
        """What was pulled into the directory, as far as this can be told."""
        return self.inspect(key).manifest

    def prepare(self, key: str, *, force: bool) -> bool:
        """Whether the model is there already; otherwise its download may begin.

        Raises StoreError if something is in the way.
        """
        self.recover()
        self._clear_others(key)
        copy = self.inspect(key)
        if copy.is_unreadable:
            raise StoreError(f"{self.directory} cannot be read: {copy.problem}")
        names = self._names()
        if not names:
            return False
        if not copy.is_published or copy.manifest is None:
            raise StoreError(_foreign(self.directory))
        if force:
            others = sorted(names - {file.path for file in copy.manifest.files})
            if others:
                raise StoreError(
                    f"{self.directory} has {len(others)} files that were not pulled, such as "
                    f"{others[0]!r}, so it is not replaced: move them away"
                )
            return False
        if copy.found is Found.DAMAGED:
            raise StoreError(
                f"{self.directory} is no longer as it was pulled ({copy.problem}): give --force to "
                "have it replaced"
            )
        return True

    def _clear_others(self, key: str) -> None:
        """Forget what another URI has left, unless it is what is in the directory."""
        copies, _ = self.scan()
        for other, copy in copies.items():
            if other == key:
                continue
            if copy.is_published and self._names():
                uri = public_uri(copy.manifest.uri) if copy.manifest else "another model"
                raise StoreError(
                    f"{self.directory} holds {uri}, which was pulled before: give another "
                    "directory, or delete this one first"
                )
            # Nothing is left of it but a download that was given up.
            self.remove(other)

    def _names(self) -> set[str]:
        """The files that are in the directory, by their paths in it."""
        if self.directory.is_symlink() or self.directory.is_file():
            return {"."}
        return {
            os.path.relpath(os.path.join(folder, name), self.directory)  # noqa: PTH118 - many files
            for folder, _, names in os.walk(self.directory)
            for name in names
        }

    def _check_place(self) -> None:
        if os.path.ismount(self.directory) or self.directory == self.directory.parent:
            raise StoreError(
                f"{self.directory} is a mount point, and the model comes there by a rename: give a "
                "directory below it"
            )
        with suppress(FileNotFoundError):
            if self.directory.samefile(os.curdir):
                raise StoreError(
                    f"{self.directory} is the current directory, which a rename would replace: "
                    "give a directory below it"
                )


def _foreign(directory: Path) -> str:
    return (
        f"{directory} is there and was not made by a pull, so it is left alone: give another "
        "directory, or move this one away"
    )
