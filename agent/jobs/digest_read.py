"""Reads a published model to compute the SHA-256 of its files that have none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from agent.disk.verify import Expected, Verifier
from agent.structs.manifest import Manifest, model_hash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def with_digests(tree: Path, manifest: Manifest, stopped: Callable[[], bool]) -> Manifest | None:
    """The manifest of a published model, with the missing digests added.

    None if a file differs from the manifest: its digest would be that of other content. Raises
    OSError; CancelledError if `stopped`.
    """
    verifier = Verifier(tree.resolve(), stopped)
    found = []
    for file in manifest.files:
        if file.sha256 is not None:
            found.append(file)
            continue
        verdict = verifier.verify(Expected(file.path, file.size))
        if verdict.fault is not None:
            return None
        found.append(replace(file, sha256=verdict.sha256))
    return replace(manifest, files=tuple(found), hash=model_hash(found))
