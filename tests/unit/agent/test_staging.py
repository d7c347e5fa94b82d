from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.disk.blocks import BLOCK_BYTES
from agent.disk.staging import ALLOCATE_BYTES, SYNC_EACH, StagedFile, Staging
from agent.structs.remote import Checksum, ChecksumAlgorithm, RemoteFile

if TYPE_CHECKING:
    from pathlib import Path

URI = "s3://bucket/model"
SIZE = 40 * BLOCK_BYTES
A = RemoteFile("a", "a", SIZE, "v1")
B = RemoteFile("deep/b", "deep/b", SIZE, "v1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "key"


@pytest.fixture(autouse=True)
def boot(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found = ["boot-1"]
    monkeypatch.setattr("agent.disk.staging._boot_id", lambda: found[0])
    return found


def begin(folder: Path, *files: RemoteFile, uri: str = URI) -> tuple[Staging, tuple[str, ...]]:
    """Staging as a new process finds it."""
    staging = Staging(folder)
    return staging, staging.begin(uri, "c1", files)


def write(staging: Staging, path: str, blocks: int) -> None:
    file = staging.staged[path]
    file.open()
    for n in range(blocks):
        file.write(bytes([n + 1]) * BLOCK_BYTES, n * BLOCK_BYTES)
        file.mark(n * BLOCK_BYTES, (n + 1) * BLOCK_BYTES)


def checkpoint(file: StagedFile) -> None:
    begun = file.begin_checkpoint()
    assert file.sync()
    if begun is not None:
        file.end_checkpoint(begun)


def here(staging: Staging) -> dict[str, int]:
    return {path: file.blocks.done // BLOCK_BYTES for path, file in staging.staged.items()}


def test_goes_on_where_it_stopped(folder: Path) -> None:
    first, _ = begin(folder, A, B)
    write(first, "a", 3)
    write(first, "deep/b", 5)
    # No close: the process was killed.
    second, changed = begin(folder, A, B)
    assert (here(second), changed) == ({"a": 3, "deep/b": 5}, ())
    assert second.version(URI) == "c1"
    assert second.path("a").stat().st_size == SIZE
    assert second.path("a").read_bytes()[: 3 * BLOCK_BYTES] == b"".join(
        bytes([n + 1]) * BLOCK_BYTES for n in range(3)
    )
    first.close()
    second.close()


def test_what_is_here_from_another_server_is_not_gone_on_with(folder: Path) -> None:
    first = Staging(folder)
    first.begin(URI, None, (A, B), "https://one")
    write(first, "a", 3)
    first.close()
    second = Staging(folder)
    second.begin(URI, None, (A, B), "https://one")
    assert here(second) == {"a": 3, "deep/b": 0}
    second.close()
    # The same names, sizes and versions, as whoever runs that server likes them.
    third = Staging(folder)
    third.begin(URI, None, (A, B), "https://two")
    assert here(third) == {"a": 0, "deep/b": 0}
    third.close()


def test_partial_block_is_not_believed(folder: Path) -> None:
    first, _ = begin(folder, A)
    first.staged["a"].open()
    first.staged["a"].mark(0, BLOCK_BYTES - 1)
    second, _ = begin(folder, A)
    assert here(second) == {"a": 0}
    first.close()
    second.close()


def test_after_a_loss_of_power_only_what_was_synced_counts(folder: Path, boot: list[str]) -> None:
    first, _ = begin(folder, A, B)
    write(first, "a", 3)
    checkpoint(first.staged["a"])
    write(first, "a", 7)
    write(first, "deep/b", 5)
    first.close()
    boot[0] = "boot-2"
    second, changed = begin(folder, A, B)
    assert (here(second), changed) == ({"a": 3, "deep/b": 0}, ())
    second.close()


def test_sealed_file_is_durable(folder: Path, boot: list[str]) -> None:
    first, _ = begin(folder, A)
    write(first, "a", 40)
    first.staged["a"].seal(SIZE, sync=True)
    first.close()
    boot[0] = "boot-2"
    second, _ = begin(folder, A)
    assert second.staged["a"].blocks.complete
    second.close()


@pytest.mark.parametrize(
    "other",
    [
        RemoteFile("a", "a", SIZE, "v2"),
        RemoteFile("a", "a", SIZE + 1, "v1"),
        RemoteFile("a", "a", SIZE, "v1", Checksum(ChecksumAlgorithm.MD5, "00")),
        RemoteFile("a", "a", SIZE, None),
        RemoteFile("a", "a", SIZE, "v1", ranges=False),
    ],
    ids=["version", "size", "checksum", "unpinned", "no-ranges"],
)
def test_only_the_file_that_changed_starts_over(folder: Path, other: RemoteFile) -> None:
    first, _ = begin(folder, A, B)
    write(first, "a", 3)
    write(first, "deep/b", 5)
    first.close()
    second, changed = begin(folder, B, other)
    assert (here(second), changed) == ({"a": 0, "deep/b": 5}, ("a",))
    second.close()
    third, changed = begin(folder, other, B)
    assert (here(third), changed) == ({"a": 0, "deep/b": 5}, ())
    third.close()


def test_file_that_the_source_has_no_more_goes(folder: Path) -> None:
    first, _ = begin(folder, A, B)
    write(first, "deep/b", 5)
    write(first, "a", 2)
    first.close()
    second, _ = begin(folder, A)
    assert {path.name for path in (folder / "files").rglob("*")} == {"a"}
    assert here(second) == {"a": 2}
    second.close()


@pytest.mark.parametrize("damage", ["journal", "progress", "file", "short"])
def test_what_is_damaged_is_not_believed(folder: Path, damage: str) -> None:
    first, _ = begin(folder, A, B)
    write(first, "a", 3)
    first.close()
    if damage == "journal":
        (folder / "journal.json").write_text("{")
    elif damage == "progress":
        (folder / "progress-1").write_bytes(b"\1\1")
    elif damage == "file":
        (folder / "files" / "a").unlink()
    else:
        with (folder / "files" / "a").open("r+b") as file:
            file.truncate(ALLOCATE_BYTES)
    second, _ = begin(folder, A, B)
    assert here(second) == {"a": 0, "deep/b": 0}
    second.close()


def test_another_model_starts_over(folder: Path) -> None:
    first, _ = begin(folder, A)
    write(first, "a", 3)
    first.close()
    second, _ = begin(folder, A, uri="s3://bucket/other")
    assert here(second) == {"a": 0}
    second.close()


def test_what_is_laid_out_already_needs_no_more_space(folder: Path) -> None:
    first, _ = begin(folder, A)
    write(first, "a", 3)
    first.close()
    second, _ = begin(folder, A)
    assert second.allocated() >= SIZE - 3 * BLOCK_BYTES
    second.close()


def test_a_file_that_was_sealed_meanwhile_needs_no_flush(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "s")
    staging.begin("mem://m", None, [RemoteFile("a", "a", 3, "v1")])
    staged = staging.staged["a"]
    staged.open()
    staged.write(b"abc", 0)
    staged.mark(0, 3)
    staged.seal(3, sync=True)
    staged.flush(0, 3)
    staging.close()


def test_what_is_of_no_use_later_is_not_kept(tmp_path: Path) -> None:
    """What comes in one answer may be of another version than the next one."""
    file = RemoteFile("a", "a", 3 * BLOCK_BYTES, "v1", ranges=False)
    for now in (file, replace(file, ranges=True)):
        staging = Staging(tmp_path / "s")
        staging.begin("mem://m", None, [now])
        staged = staging.staged["a"]
        assert staged.blocks.done == 0
        staged.open()
        staged.write(b"x" * BLOCK_BYTES, 0)
        staged.mark(0, BLOCK_BYTES)
        checkpoint(staged)
        staging.close()
    again = Staging(tmp_path / "s")
    again.begin("mem://m", None, [replace(file, ranges=True)])
    assert again.staged["a"].blocks.done == BLOCK_BYTES
    again.close()


def test_what_starts_over_during_a_sync_does_not_count_as_synced(
    folder: Path, boot: list[str]
) -> None:
    first, _ = begin(folder, A, B)
    write(first, "a", 3)
    write(first, "deep/b", 3)
    a, b = first.staged["a"], first.staged["deep/b"]
    begun = [one.begin_checkpoint() for one in (a, b)]
    a.restart()
    b.drop([(BLOCK_BYTES, 2 * BLOCK_BYTES)])
    for one, checkpoint in zip((a, b), begun, strict=True):
        assert checkpoint is not None
        assert one.sync()
        one.end_checkpoint(checkpoint)
    assert here(first) == {"a": 0, "deep/b": 2}
    # `complete` is told by these.
    write(first, "a", 40)
    assert a.blocks.complete
    first.close()
    boot[0] = "boot-2"
    second, _ = begin(folder, A, B)
    assert here(second) == {"a": 0, "deep/b": 0}
    second.close()


def test_a_sync_says_nothing_of_what_is_written_meanwhile(folder: Path, boot: list[str]) -> None:
    first, _ = begin(folder, A)
    write(first, "a", 3)
    file = first.staged["a"]
    begun = file.begin_checkpoint()
    assert begun is not None
    write(first, "a", 7)
    assert file.sync()
    file.end_checkpoint(begun)
    first.close()
    for now, count in (("boot-1", 7), ("boot-2", 3)):
        boot[0] = now
        again, _ = begin(folder, A)
        assert here(again) == {"a": count}
        again.close()


def test_a_closed_file_is_not_synced(folder: Path) -> None:
    staging, _ = begin(folder, A)
    write(staging, "a", 3)
    file = staging.staged["a"]
    file.close()
    assert file.begin_checkpoint() is None
    assert not file.sync()
    staging.close()


def test_what_a_failed_sync_leaves_is_fetched_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = begin(folder, A)
    write(first, "a", 3)
    checkpoint(first.staged["a"])
    write(first, "a", 40)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", fails)
        with pytest.raises(OSError, match="Input/output"):
            first.staged["a"].seal(SIZE, sync=True)
    first.close()
    # The kernel reports such an error once: the next sync would succeed.
    second, _ = begin(folder, A)
    assert here(second) == {"a": 3}
    second.close()


def test_what_a_failed_sync_of_many_files_leaves_is_fetched_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [RemoteFile(f"{n}", f"{n}", BLOCK_BYTES, "v1") for n in range(SYNC_EACH + 1)]
    first, _ = begin(folder, *files)
    for file in files:
        write(first, file.path, 1)
        first.staged[file.path].seal(BLOCK_BYTES, sync=False)
        first.staged.forget(file.path)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("agent.disk.staging.sync_file_system", fails)
        with pytest.raises(OSError, match="Input/output"):
            first.sync()
    first.close()
    second, _ = begin(folder, *files)
    assert second.done() == 0
    second.close()
