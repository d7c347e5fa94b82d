"""What is on the disk of one model. It only looks. Raises OSError where that cannot be told."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from agent.disk.files import blocks_of, tree_blocks
from agent.disk.staging import announced_size
from agent.structs.manifest import Access, Manifest
from agent.structs.records import Evicted, Scrub, Usage
from agent.structs.sizes import in_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agent.structs.manifest import ManifestFile

MISSING = {errno.ENOENT, errno.ENOTDIR}

Note = TypeVar("Note", bound=BaseModel)


class Found(StrEnum):
    """What is on the disk of one key."""

    NOTHING = "Nothing"
    STAGED = "Staged"
    PUBLISHED = "Published"
    DAMAGED = "Damaged"
    UNREADABLE = "Unreadable"


@dataclass(frozen=True)
class Disk:
    """Bytes of the disk for models: its size, what is taken, and what we can still write."""

    capacity: int
    used: int
    available: int


def measure(root: Path, size: int | None, trees: Iterable[Path]) -> Disk:
    """How full a disk is. With a `size`, nothing counts but what these trees take."""
    figures = os.statvfs(root)
    capacity = figures.f_blocks * figures.f_frsize
    available = figures.f_bavail * figures.f_frsize
    if size is None:
        used = (figures.f_blocks - figures.f_bfree) * figures.f_frsize
        return Disk(capacity, used, available)
    used = sum(map(tree_blocks, trees))
    return Disk(
        capacity=min(size, capacity), used=used, available=max(0, min(size - used, available))
    )


@dataclass(frozen=True)
class OnDisk:
    """One key on the disk.

    A damaged one is ours, was published, and is no longer whole. Of an unreadable one nobody can
    tell now: the disk, or a limit of the process, gave an error.

    `tree_bytes` is what models/<key> takes of the disk, as far as it is the model's; `staged_bytes`
    what else is there of it; `bad_bytes` what its bad files take once they are good. `announced` is
    the size of the model whose download is under way. `scrub` is what the last reading of all its
    files has found.
    """

    found: Found = Found.NOTHING
    manifest: Manifest | None = None
    problem: str = ""
    tree_bytes: int = 0
    staged_bytes: int = 0
    bad_bytes: int = 0
    announced: int | None = None
    usage: Usage | None = None
    evicted: Evicted | None = None
    scrub: Scrub | None = None
    # Of a copy that is no longer in models/, and is to come back.
    held: Access | None = None

    @property
    def access(self) -> Access | None:
        """Where the copy came from and who may have it, also while it is away; None: not known."""
        return self.manifest.access if self.manifest else self.held

    @property
    def is_published(self) -> bool:
        """Whether what is in models/ is ours, whole or not."""
        return self.found in {Found.PUBLISHED, Found.DAMAGED}

    @property
    def is_unreadable(self) -> bool:
        """Whether nothing can be said of it, and so nothing be done with it."""
        return self.found is Found.UNREADABLE

    @property
    def is_left(self) -> bool:
        """Whether there is of it what only waits for its return: staging, or when it was used."""
        noted = (self.usage is not None or self.held is not None) and self.evicted is None
        return self.found is Found.STAGED or (self.found is Found.NOTHING and noted)


def look(tree: Path, meta: Path, scrub: Scrub | None = None) -> OnDisk:
    """What is in the published directory of a key, and in its private one.

    By its manifest, the sizes of its files, and the last `scrub`, or what is noted of it. Digests
    are not computed: the files were verified before they were published.
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
        staged_bytes=staged,
        usage=read_note(meta / "usage.json", Usage) or _first_usage(path),
        scrub=scrub,
    )


def staged_bytes(meta: Path) -> int:
    """Bytes of the disk that a key takes beside its published copy."""
    return sum(tree_blocks(meta / name) for name in ("files", "old"))


def read_note(path: Path, kind: type[Note]) -> Note | None:
    """What is noted there; None where there is nothing, or nothing valid. Raises OSError else."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError:
        return None
    except OSError as error:
        if error.errno in MISSING:
            return None
        raise


def bad_files(tree: Path, manifest: Manifest, scrub: Scrub | None) -> list[ManifestFile]:
    """The files that are missing, have another size, or were bad when they were read last."""
    noted = {file.path for file in scrub.bad} if scrub else set()
    return [f for f in manifest.files if f.path in noted or _glance(tree / f.path, f.size)[0]]


def _first_usage(manifest: Path) -> Usage:
    """The usage of a model of which none is noted: it was published when its manifest was."""
    return Usage(published_time=datetime.fromtimestamp(int(manifest.stat().st_mtime), UTC))


def compare(tree: Path, manifest: Manifest) -> tuple[str, int]:
    """What is not as the manifest has it, or nothing; and the bytes of the disk that are its files.

    Raises OSError where it cannot be told.
    """
    problem, taken = "", 0
    for file in manifest.files:
        wrong, blocks = _glance(tree / file.path, file.size)
        problem = problem or wrong
        taken += blocks
    if not problem and not tree.is_dir():
        problem = f"{tree} is not there"
    return problem, taken


def _glance(path: Path, size: int) -> tuple[str, int]:
    """What is wrong with a file by its kind and size, or nothing; and its bytes of the disk."""
    try:
        found = path.lstat()
    except OSError as error:
        if error.errno not in MISSING:
            raise
        return f"{path}: {error.strerror}", 0
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is not a regular file", blocks_of(found)
    if found.st_size != size:
        return f"{path} has {found.st_size} bytes, and should have {size}", blocks_of(found)
    return "", blocks_of(found)
