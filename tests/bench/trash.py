"""Frees the bytes of files between two runs without deleting the files.

ext4 without a journal uses no inode again within minutes of its deletion: a new file passes over
all such inodes of its group, one by one. After one tool's 10,000 files are deleted, the next tool
would need milliseconds for each file that it creates.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Trash:
    """A folder that keeps the files of former runs, empty."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._runs = 0

    def take(self, folder: Path) -> None:
        """Move all files below a folder here, and free their bytes. Its folders stay."""
        place = self._folder / str(self._runs)
        place.mkdir()
        self._runs += 1
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        for number, path in enumerate(files):
            os.truncate(path, 0)
            path.rename(place / str(number))
