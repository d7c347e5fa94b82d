"""The folders below the agent's root, and the lock that makes one agent the only one there."""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.disk.files import FILE_MODE, make_directory
from crds.keys import MODEL_KEY_LENGTH

if TYPE_CHECKING:
    from pathlib import Path

KEY = re.compile(rf"[0-9a-f]{{{MODEL_KEY_LENGTH}}}")


class StoreError(Exception):
    """The store cannot be opened. The message says why, and what to do.

    `__cause__` is the OSError if the disk is the reason.
    """


class BusyError(StoreError):
    """Another agent has locked the root."""


@dataclass(frozen=True)
class Root:
    """The folders of a root: `models` for published models, `private` for everything else.

    Both are on one file system. `only` is the directory of the one model of a root that has no
    other.
    """

    path: Path
    models: Path
    private: Path
    only: Path | None = None

    def model(self, key: str) -> Path:
        """Where a model is published."""
        return self.only or self.models / key

    @property
    def volumes(self) -> Path:
        """The folder of the volumes that show one model each. The root of one model has none."""
        return (self.private if self.only else self.path) / "volumes"

    @property
    def is_laid_out(self) -> bool:
        """Whether both folders exist."""
        return self.models.is_dir() and self.private.is_dir()

    def lay_out(self) -> None:
        """Make the folders that do not exist. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        make_directory(self.models)
        make_directory(self.private)

    def lock(self) -> int:
        """Lock the root. Returns the descriptor of the lock. Raises StoreError and OSError."""
        if self.models.stat().st_dev != self.private.stat().st_dev:
            raise StoreError(
                f"{self.models} and {self.private} are on different file systems: models are "
                "published by a rename, so mount one volume at the root itself"
            )
        descriptor = os.open(self.private / "lock", os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BusyError(
                f"another agent already works on {self.path}: stop it, or give this one another "
                "root"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
