"""The published copy of a model as it is served to others: whether it has changed, and its files.

Raises OSError where the disk gives an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from agent.disk.on_disk import MISSING, read_note
from agent.structs.manifest import Manifest
from agent.structs.records import Scrub

if TYPE_CHECKING:
    from pathlib import Path

# Of the manifest and of the last scrub: each is replaced by a new file when it changes.
Stamp: TypeAlias = tuple[object, ...]


def stamp(meta: Path, scrub: Scrub | None) -> Stamp | None:
    """What differs whenever `intact` may; None without a published copy.

    `meta` is the private directory of the model, `scrub` a result that is not on the disk.
    """
    manifest = _identity(meta / "manifest.json")
    return manifest and (manifest, _identity(meta / "scrub.json"), scrub and scrub.time)


def intact(meta: Path, scrub: Scrub | None) -> tuple[Manifest, frozenset[str]] | None:
    """The manifest of a published copy, and the paths of its files that the last scrub found good.

    None if the manifest cannot be read.
    """
    manifest = read_note(meta / "manifest.json", Manifest)
    if manifest is None:
        return None
    scrub = scrub or read_note(meta / "scrub.json", Scrub)
    bad = {file.path for file in scrub.bad} if scrub else set()
    return manifest, frozenset(file.path for file in manifest.files if file.path not in bad)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in MISSING:
            return None
        raise
    return found.st_ino, found.st_mtime_ns
