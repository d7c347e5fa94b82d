"""What is good in a damaged model, and how bad files are replaced. Raises OSError."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.disk.files import delete_tree, make_directory, paths_below
from agent.disk.no_follow import put
from agent.disk.on_disk import bad_files
from agent.disk.staging import Staging
from agent.disk.verify import Expected, Verifier
from agent.structs.remote import Checksum, ChecksumAlgorithm, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from agent.disk.on_disk import OnDisk
    from agent.structs.manifest import Manifest


def checksum_of(text: str | None) -> Checksum | None:
    """The store's checksum of a file, as a manifest has it."""
    if text is None:
        return None
    algorithm, _, value = text.partition(":")
    return Checksum(ChecksumAlgorithm(algorithm), value)


def lay_out(meta: Path, manifest: Manifest, good: Collection[str]) -> None:
    """Begin a download that has these files already: they are about to be moved into it."""
    staging = Staging(meta)
    try:
        staging.begin(
            manifest.uri,
            None,
            [
                RemoteFile(f.path, f.path, f.size, f.version, checksum_of(f.checksum))
                for f in manifest.files
            ],
            manifest.access.origin if manifest.access else None,
        )
        for path in good:
            staging.staged[path].mark_complete()
            staging.staged.forget(path)
    finally:
        staging.close()


def drop_others(tree: Path, manifest: Manifest, good: Collection[str]) -> None:
    """Delete the files that are not good."""
    for file in manifest.files:
        if file.path not in good:
            delete_tree(tree / file.path)


def proved(tree: Path, copy: OnDisk, stopped: Callable[[], bool]) -> set[str]:
    """The paths of the files that are as they were downloaded. Raises CancelledError once stopped.

    A scrub that found bad files has read the others. Without one, all are read now.
    """
    if copy.manifest is None:
        return set()
    bad = {file.path for file in bad_files(tree, copy.manifest, copy.scrub)}
    good = [file for file in copy.manifest.files if file.sha256 and file.path not in bad]
    if copy.scrub is None or not copy.scrub.bad:
        verifier = Verifier(tree, stopped)
        expected = (Expected(file.path, file.size, sha256=file.sha256) for file in good)
        return {file.path for file in map(verifier.verify, expected) if file.fault is None}
    return {file.path for file in good}


def replace_files(tree: Path, source: Path, paths: Iterable[str]) -> None:
    """Move these files to their places in the tree, each over what is there."""
    make_directory(tree)
    for path in paths:
        put(source / path, tree, path, replace=True)


def fill(tree: Path, source: Path, paths: Iterable[str]) -> None:
    """Move these files to their places in the tree, where nothing may be."""
    for path in paths:
        put(source / path, tree, path, replace=False)


def has_others(tree: Path, manifest: Manifest) -> bool:
    """Whether there are files in the tree that are not the model's: it was adopted with them."""
    known = {file.path for file in manifest.files}
    try:
        return any(path not in known for path in paths_below(tree))
    except PermissionError:
        # The agent's own folders are open to it.
        return True
