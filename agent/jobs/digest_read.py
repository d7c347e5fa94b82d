"""Reads a published model to compute the SHA-256 of its files that have none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from agent.disk.repair import checksum_of
from agent.disk.verify import DIFFERS, Expected, Verifier
from agent.structs.manifest import Manifest, model_hash
from agent.structs.records import BadFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def with_digests(tree: Path, manifest: Manifest, stopped: Callable[[], bool]) -> Manifest | BadFile:
    """The manifest of a published model, with the missing digests added.

    Each file is compared with the checksum of its store once more. The first file that differs is
    returned instead: its digest would be that of other content. Raises OSError; CancelledError if
    `stopped`.
    """
    verifier = Verifier(tree.resolve(), stopped)
    found = []
    for file in manifest.files:
        if file.sha256 is not None:
            found.append(file)
            continue
        expected = Expected(file.path, file.size, checksum_of(file.checksum))
        verdict = verifier.verify(expected)
        if verdict.fault is not None:
            return BadFile(path=file.path, problem=DIFFERS)
        found.append(replace(file, sha256=verdict.sha256))
    return replace(manifest, files=tuple(found), hash=model_hash(found))
