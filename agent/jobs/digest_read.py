"""Reads a published model to compute the SHA-256 of its files that have none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from agent.disk.repair import checksum_of
from agent.disk.verify import DIFFERS, Expected, Verdict, Verifier
from agent.structs.manifest import Manifest, ManifestFile, model_hash
from agent.structs.records import BadFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def with_digests(
    tree: Path, manifest: Manifest, stopped: Callable[[], bool]
) -> Manifest | tuple[BadFile, ...]:
    """The manifest of a published model, with the missing digests added.

    Each file is compared with the checksum of its store once more. If one differs, its digest would
    be that of other content: then all files are read, and those that differ are returned. Raises
    OSError; CancelledError if `stopped`.
    """
    verifier = Verifier(tree.resolve(), stopped)

    def verify(file: ManifestFile) -> Verdict:
        checksum = None if file.sha256 else checksum_of(file.checksum)
        return verifier.verify(Expected(file.path, file.size, checksum, file.sha256))

    verdicts = {file.path: verify(file) for file in manifest.files if not file.sha256}
    if any(verdict.fault is not None for verdict in verdicts.values()):
        verdicts |= {file.path: verify(file) for file in manifest.files if file.sha256}
        return tuple(
            BadFile(path=path, problem=DIFFERS)
            for path, verdict in verdicts.items()
            if verdict.fault is not None
        )
    files = tuple(
        file if file.sha256 else replace(file, sha256=verdicts[file.path].sha256)
        for file in manifest.files
    )
    return replace(manifest, files=files, hash=model_hash(files))
