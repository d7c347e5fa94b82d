"""Deletes what interrupted steps left of a key and nothing can complete. Raises OSError."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.disk.files import delete_file, delete_tree
from agent.disk.staging import forget_progress

if TYPE_CHECKING:
    from pathlib import Path


def clear_leftovers(meta: Path, tree: Path) -> None:
    """Delete leftovers, once complete downloads are published. Unfinished downloads stay."""
    delete_file(meta / "staged.json")
    taken_out = (meta / "old").exists() or (meta / "files").exists()
    if taken_out and not tree.exists():
        # The copy was moved to old/ or back to staging, and its manifest was not deleted yet.
        delete_file(meta / "manifest.json")
    delete_tree(meta / "old")
    if (meta / "manifest.json").exists():
        # A download that was to replace the published copy starts over if it is still wanted.
        forget_progress(meta)
        delete_tree(meta / "files")
        # The copy was published again, and these notes were not deleted yet.
        delete_file(meta / "evicted.json")
        delete_file(meta / "held.json")
    else:
        delete_file(meta / "scrub.json")
    if not (meta / "files").exists():
        forget_progress(meta)
