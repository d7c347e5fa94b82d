"""Reads a published model to compute the SHA-256 of its files that have none yet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from localmodel.agent.disk.files import file_digest
from localmodel.agent.structs.manifest import Manifest, model_hash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def with_digests(tree: Path, manifest: Manifest, stopped: Callable[[], bool]) -> Manifest:
    """The manifest of a published model, with the missing digests added.

    Raises OSError; InterruptedError if `stopped`.
    """
    found = []
    for file in manifest.files:
        digest = file.sha256
        if digest is None:
            digest = file_digest(tree / file.path, stopped)
        found.append(replace(file, sha256=digest))
    return manifest.model_copy(update={"files": tuple(found), "hash": model_hash(found)})
