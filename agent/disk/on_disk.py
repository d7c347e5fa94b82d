"""The files and records of one model on the disk, as they are found. Changes nothing.

Raises OSError where the disk gives an error.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from agent.disk.files import blocks_of, tree_blocks
from agent.disk.staging import announced_size
from agent.structs.json_record import JsonRecord, RecordError
from agent.structs.manifest import Access, Manifest
from agent.structs.records import Evicted, Scrub, Usage
from agent.structs.sizes import in_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agent.disk.kubelet_disk import KubeletDisk
    from agent.structs.kubelet import KubeletBound
    from agent.structs.manifest import ManifestFile

MISSING = {errno.ENOENT, errno.ENOTDIR}

Note = TypeVar("Note", bound=JsonRecord)


class Found(StrEnum):
    """The state of one key on the disk."""

    NOTHING = "Nothing"
    STAGED = "Staged"
    PUBLISHED = "Published"
    DAMAGED = "Damaged"
    UNREADABLE = "Unreadable"


@dataclass(frozen=True)
class Disk:
    """Bytes of the disk for models: its size, the used ones, and those that the agent may write.

    `kubelet` is the bound by the kubelet's thresholds; None if the disk is not the kubelet's.
    """

    capacity: int
    used: int
    available: int
    kubelet: KubeletBound | None = None


def measure(
    root: Path, size: int | None, trees: Iterable[Path], kubelet: KubeletDisk | None = None
) -> Disk:
    """How full a disk is. With a `size`, only the files of these trees count as used.

    The kubelet's thresholds count for the file system as a whole, whatever the `size`.
    """
    figures = os.statvfs(root)
    capacity = figures.f_blocks * figures.f_frsize
    available = figures.f_bavail * figures.f_frsize
    if size is None:
        used = (figures.f_blocks - figures.f_bfree) * figures.f_frsize
        disk = Disk(capacity, used, available)
    else:
        used = sum(map(tree_blocks, trees))
        disk = Disk(
            capacity=min(size, capacity), used=used, available=max(0, min(size - used, available))
        )
    if kubelet is None:
        return disk
    bound = kubelet.bound_of(root, capacity=capacity, available=available, used=used)
    return replace(disk, kubelet=bound)


@dataclass(frozen=True)
class OnDisk:
    """One key on the disk.

    A damaged copy was published by the agent, and differs from its manifest now. An unreadable copy
    is in an unknown state: the disk, or a limit of the process, gave an error.

    `tree_bytes` are the bytes of the disk that the model's files in models/<key> take,
    `staged_bytes` those of its staging, `bad_bytes` those that its bad files take once they are
    repaired, and `bad_files` is their number. `announced` is the size of a model whose download is
    unfinished. `scrub` is the result of the last scrub.
    """

    found: Found = Found.NOTHING
    manifest: Manifest | None = None
    problem: str = ""
    tree_bytes: int = 0
    staged_bytes: int = 0
    bad_bytes: int = 0
    bad_files: int = 0
    announced: int | None = None
    usage: Usage | None = None
    evicted: Evicted | None = None
    scrub: Scrub | None = None
    # The access record of a copy that has left models/ and will be downloaded again.
    held: Access | None = None
    # Whether a whole copy has no view, or one that differs: see views.py.
    lacks_view: bool = False

    @property
    def verified_time(self) -> datetime | None:
        """When all files were last read or received, and compared with the manifest."""
        times = (self.scrub and self.scrub.time, self.usage and self.usage.published_time)
        return max((time for time in times if time), default=None)

    @property
    def access(self) -> Access | None:
        """The access record of the copy, also while it is not in models/; None: not known."""
        return self.manifest.access if self.manifest else self.held

    @property
    def is_published(self) -> bool:
        """Whether models/ has a copy of the agent, whole or damaged."""
        return self.found in {Found.PUBLISHED, Found.DAMAGED}

    @property
    def is_whole(self) -> bool:
        """Whether models/ has a whole copy, and volumes lead to it."""
        return self.found is Found.PUBLISHED and not self.lacks_view

    @property
    def is_unreadable(self) -> bool:
        """Whether the state is unknown, so that the agent leaves the copy alone."""
        return self.found is Found.UNREADABLE

    @property
    def is_left(self) -> bool:
        """Whether only staging or records are left of the model, for its next download."""
        noted = (self.usage is not None or self.held is not None) and self.evicted is None
        return self.found is Found.STAGED or (self.found is Found.NOTHING and noted)


def look(tree: Path, meta: Path, scrub: Scrub | None = None) -> OnDisk:
    """The state of a key, by its published directory (`tree`) and its private one (`meta`).

    Files are compared with the manifest by kind and size, and with the last `scrub` or its record.
    Digests are not computed: the files were verified before they were published.
    """
    path = meta / "manifest.json"
    staged = staged_bytes(meta)
    if not path.exists():
        is_staged = (meta / "files").exists()
        evicted = read_note(meta / "evicted.json", Evicted)
        return OnDisk(
            Found.STAGED if is_staged else Found.NOTHING,
            staged_bytes=staged,
            announced=announced_size(meta) if is_staged else None,
            usage=read_note(meta / "usage.json", Usage),
            evicted=evicted,
            held=read_note(meta / "held.json", Access),
        )
    manifest = read_note(path, Manifest)
    if manifest is None:
        problem, taken = f"its manifest {path} cannot be read", tree_blocks(tree)
    else:
        problem, taken = compare(tree, manifest)
    scrub = scrub or read_note(meta / "scrub.json", Scrub)
    if scrub is not None and scrub.bad and not problem:
        problem = f"{tree / scrub.bad[0].path} {scrub.bad[0].problem}"
    bad = bad_files(tree, manifest, scrub) if problem and manifest else []
    return OnDisk(
        Found.DAMAGED if problem else Found.PUBLISHED,
        manifest,
        problem,
        tree_bytes=taken,
        bad_bytes=sum(in_blocks(file.size) for file in bad),
        bad_files=len(bad),
        staged_bytes=staged,
        usage=read_note(meta / "usage.json", Usage) or _first_usage(path),
        scrub=scrub,
    )


def staged_bytes(meta: Path) -> int:
    """Bytes of the disk that a key takes besides its published copy."""
    return sum(tree_blocks(meta / name) for name in ("files", "old"))


def read_note(path: Path, kind: type[Note]) -> Note | None:
    """The record in a file; None if the file is missing or invalid. Raises OSError."""
    try:
        return kind.decode(path.read_bytes())
    except RecordError:
        return None
    except OSError as error:
        if error.errno in MISSING:
            return None
        raise


def bad_files(tree: Path, manifest: Manifest, scrub: Scrub | None) -> list[ManifestFile]:
    """The files that are missing, have another size, or were bad when they were read last."""
    noted = {file.path for file in scrub.bad} if scrub else set()
    return [f for f in manifest.files if f.path in noted or _glance(f"{tree}/{f.path}", f.size)[0]]


def _first_usage(manifest: Path) -> Usage:
    """The usage of a model without a record of it: its manifest has the time of publication."""
    return Usage(published_time=datetime.fromtimestamp(int(manifest.stat().st_mtime), UTC))


def compare(tree: Path, manifest: Manifest) -> tuple[str, int]:
    """The first difference from the manifest, or nothing, and the bytes that the files take.

    Raises OSError where the disk gives an error.
    """
    problem, taken = "", 0
    for file in manifest.files:
        wrong, blocks = _glance(f"{tree}/{file.path}", file.size)
        problem = problem or wrong
        taken += blocks
    if not problem and not tree.is_dir():
        problem = f"{tree} is not there"
    return problem, taken


def _glance(path: str, size: int) -> tuple[str, int]:
    """What is wrong with the kind or size of a file, or nothing, and its bytes of the disk.

    `path` is no Path: to make one takes longer than the look at the file.
    """
    try:
        found = os.lstat(path)
    except OSError as error:
        if error.errno not in MISSING:
            raise
        return f"{path}: {error.strerror}", 0
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is not a regular file", blocks_of(found)
    if found.st_size != size:
        return f"{path} has {found.st_size} bytes, and should have {size}", blocks_of(found)
    return "", blocks_of(found)
