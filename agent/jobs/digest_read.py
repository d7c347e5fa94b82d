"""Reads a published model for the digests of its files that were left for later."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from localmodel.agent.disk.verify import Expected, Verifier
from localmodel.agent.structs.manifest import Manifest, model_hash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def with_digests(tree: Path, manifest: Manifest, stopped: Callable[[], bool]) -> Manifest | None:
    """The manifest of a published model with the digests that were left for later.

    None: a file is not as the manifest has it, so that its digest would be of other content. Raises
    OSError, and CancelledError once stopped.
    """
    verifier = Verifier(tree, stopped)
    found = []
    for file in manifest.files:
        if file.sha256 is not None:
            found.append(file)
            continue
        verdict = verifier.verify(Expected(file.path, file.size))
        if verdict.fault is not None:
            return None
        found.append(replace(file, sha256=verdict.sha256))
    return manifest.model_copy(update={"files": tuple(found), "hash": model_hash(found)})
