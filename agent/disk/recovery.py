"""What interrupted steps have left of a key and nothing brings to an end. Raises OSError."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localmodel.agent.disk.files import delete_file, delete_tree
from localmodel.agent.disk.staging import forget_progress

if TYPE_CHECKING:
    from pathlib import Path


def clear_leftovers(meta: Path, tree: Path) -> None:
    """Delete what is of no use any more, when nothing can be finished. Staging stays."""
    delete_file(meta / "staged.json")
    taken_out = (meta / "old").exists() or (meta / "files").exists()
    if taken_out and not tree.exists():
        # To be deleted, or to be repaired, and only its manifest was still to go.
        delete_file(meta / "manifest.json")
    delete_tree(meta / "old")
    if (meta / "manifest.json").exists():
        # What was to replace the published copy starts over if it is still wanted.
        forget_progress(meta)
        delete_tree(meta / "files")
        # It is back, and only the note was still to go.
        delete_file(meta / "evicted.json")
        delete_file(meta / "held.json")
    else:
        delete_file(meta / "scrub.json")
    if not (meta / "files").exists():
        forget_progress(meta)
