from __future__ import annotations

import errno
import io
import os
import tarfile
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.disk.on_disk import Disk, Found
from agent.disk.store import Store
from agent.engine.engine import Engine
from agent.jobs.download import Download, Progress
from agent.sources import Sources
from agent.structs.failures import CancelledError, DownloadError, FailureKind
from agent.structs.manifest import CacheName
from agent.structs.requests import Request
from crds.keys import model_key
from tests.faults.calls import Call, Calls, Fault, faults, raising, watched
from tests.unit.agent.archives import member
from tests.unit.agent.helpers import hash_of, publish, tree
from tests.unit.agent.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_waiting")

URI = "mem://user:pw@model"
KEY = model_key(URI)
FILES = {"config.json": b"{}", "sub/w.bin": b"w" * 1000, "empty": b""}


def refuse(*_: object) -> None:
    raise AssertionError("nothing may be fetched")


class Run:
    """One download and what it told."""

    def __init__(self, store: Store, source: Memory, *hashes: str) -> None:
        self.cancelled = threading.Event()
        self.progress: list[Progress] = []
        self.download = Download(
            Request(KEY, URI, (CacheName(name="m"),), frozenset(hashes)),
            sources=Sources({"mem": source}),
            store=store,
            engine=Engine(jitter=lambda: 0.0),
            credentials=own_credentials,
            cancelled=self.cancelled,
            report=self.progress.append,
        )

    def failure(self) -> DownloadError:
        with pytest.raises(DownloadError) as caught:
            self.download.run()
        assert "pw" not in caught.value.message
        return caught.value


def test_model_is_published_with_its_manifest_and_progress(store: Store) -> None:
    run = Run(store, Memory(FILES))
    manifest = run.download.run()
    assert tree(store, KEY) == FILES
    assert manifest.hash == hash_of(FILES)
    assert manifest.caches == (CacheName(name="m"),)
    assert {file.version for file in manifest.files} == {"v1"}
    assert store.inspect(KEY).manifest == manifest
    assert run.progress[0] == Progress(0, 1002)
    assert run.progress[-1] == Progress(1002, 1002)


def test_unknown_length_is_allowed(store: Store) -> None:
    run = Run(store, Memory(FILES, {"sub/w.bin": None}))
    run.download.run()
    assert tree(store, KEY) == FILES
    assert {progress.total for progress in run.progress} == {None}


def test_file_that_ends_early_is_never_published(store: Store) -> None:
    error = Run(store, Memory(FILES, {"sub/w.bin": 1001})).failure()
    assert error.kind is FailureKind.UNREACHABLE
    assert tree(store, KEY) is None


def test_a_size_below_zero_is_refused(store: Store) -> None:
    error = Run(store, Memory(FILES, {"sub/w.bin": -5})).failure()
    assert error.kind is FailureKind.UNSUPPORTED
    assert "lists 'sub/w.bin' with -5 bytes" in error.message
    assert store.scan() == ({}, ())


def test_expected_hash_is_compared_before_the_publication(store: Store) -> None:
    right, wrong = hash_of(FILES), "sha256:" + "0" * 64
    error = Run(store, Memory(FILES), wrong).failure()
    assert error.kind is FailureKind.CORRUPT
    assert right in error.message
    assert wrong in error.message
    assert store.scan() == ({}, ())
    both = Run(store, Memory(FILES), right, wrong).failure()
    assert right in both.message
    assert wrong in both.message
    Run(store, Memory(FILES), right).download.run()
    assert tree(store, KEY) == FILES


@pytest.mark.parametrize(
    "contents",
    [
        {"../evil": b"x"},
        {"/etc/evil": b"x"},
        {"a\nb": b"x"},
        {"a": b"file", "a/b": b"folder"},
        {"a/b/c": b"folder", "a/b": b"file"},
    ],
)
def test_names_that_cannot_be_stored_are_refused_before_the_first_byte(
    store: Store, contents: dict[str, bytes]
) -> None:
    source = Memory(contents, on_open=refuse)
    error = Run(store, source).failure()
    assert error.kind is FailureKind.UNSUPPORTED
    assert store.scan() == ({}, ())


def test_space_is_checked_before_the_first_byte(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "disk", lambda: Disk(2000, 1000, 1001))
    source = Memory(FILES, on_open=refuse)
    error = Run(store, source).failure()
    assert error.kind is FailureKind.NO_SPACE
    assert "needs 1002, and" in error.message
    assert "has 1001 left" in error.message


def test_disk_that_fills_up_on_the_way_is_no_space(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def write(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) == 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    error = Run(store, Memory(FILES)).failure()
    assert error.kind is FailureKind.NO_SPACE
    assert store.inspect(KEY).found is Found.NOTHING


def test_foreign_directory_is_told_before_anything_is_asked(store: Store) -> None:
    (store.root / "models" / KEY).mkdir()
    (store.root / "models" / KEY / "theirs").write_text("x")
    source = Memory(FILES, on_open=refuse)
    assert Run(store, source).failure().kind is FailureKind.FOREIGN_DIRECTORY
    assert tree(store, KEY) == {"theirs": b"x"}


def test_scheme_without_a_source_is_unsupported(store: Store) -> None:
    run = Run(store, Memory(FILES))
    run.download._sources = Sources({})
    assert run.failure().kind is FailureKind.UNSUPPORTED


def test_cancelled_download_is_not_published_and_may_go_on(store: Store) -> None:
    source = Memory(FILES, on_read=lambda *_: run.cancelled.set())
    run = Run(store, source)
    with pytest.raises(CancelledError):
        run.download.run()
    assert store.inspect(KEY).found is Found.STAGED
    Run(store, source).download.run()
    assert tree(store, KEY) == FILES
    assert source.sent.total() <= 2 * 1002


def test_download_that_is_cancelled_at_its_last_byte_is_not_published(store: Store) -> None:
    run = Run(store, Memory(FILES))

    def cancel(progress: Progress) -> None:
        if progress.done == progress.total:
            run.cancelled.set()

    run.download._report = cancel
    with pytest.raises(CancelledError):
        run.download.run()
    assert tree(store, KEY) is None


def test_damaged_copy_goes_when_its_replacement_begins(store: Store) -> None:
    publish(store, URI, FILES)
    (store.root / "models" / KEY / "config.json").unlink()
    seen: list[object] = []
    Run(store, Memory(FILES, on_read=lambda *_: seen.append(tree(store, KEY)))).download.run()
    assert set(map(str, seen)) == {"None"}
    assert tree(store, KEY) == FILES


def test_copy_that_cannot_be_read_now_is_not_replaced_on_a_guess(store: Store) -> None:
    publish(store, URI, FILES)
    source = Memory(FILES, on_open=refuse)

    def meets(call: Call) -> bool:
        return call.path.endswith("manifest.json") and call.name == "open"

    broken = raising(lambda call: OSError(errno.EIO, "Input/output error", call.path))
    with watched(Calls(store.root, Fault(broken, meets, Fault(broken, meets)), 1)):
        error = Run(store, source).failure()
    assert error.kind is FailureKind.INTERNAL
    assert "manifest.json: Input/output error; check the node's disk" in error.message
    assert tree(store, KEY) == FILES


def test_whole_copy_stays_until_its_replacement_is_verified(store: Store) -> None:
    publish(store, URI, {"old": b"1"})
    Run(store, Memory(FILES), "sha256:" + "0" * 64).failure()
    assert tree(store, KEY) == {"old": b"1"}
    Run(store, Memory(FILES), hash_of(FILES)).download.run()
    assert tree(store, KEY) == FILES


def test_a_copy_that_an_error_met_after_its_rename_is_not_fetched_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "injected", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_complete", lambda self, _: broken(self.root / "models"))
        assert Run(store, Memory(FILES)).failure().kind is FailureKind.UNAVAILABLE
    before = store.path(KEY).stat().st_ino
    source = Memory(FILES)
    assert Run(store, source).download.run().hash == hash_of(FILES)
    assert (source.resolved, store.path(KEY).stat().st_ino) == (0, before)
    assert {path.name for path in (store.root / ".localmodel" / KEY).iterdir()} == {"manifest.json"}


@pytest.mark.timeout(60)  # downloads once for each call of the disk
def test_any_error_of_the_disk_is_a_failure_and_never_half_a_model(tmp_path: Path) -> None:
    for n in range(1, 200):
        store = Store(tmp_path / str(n))
        store.open()
        run = Run(store, Memory(FILES))
        with (
            faults(store.root, n, lambda: OSError(errno.EIO, "x"), once=True) as calls,
            suppress(DownloadError),
        ):
            run.download.run()
        assert tree(store, KEY) in (None, FILES)
        Run(store, Memory(FILES)).download.run()
        assert tree(store, KEY) == FILES
        store.close()
        if not calls.struck:
            return
    pytest.fail("it never ends")


def packed(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


@pytest.mark.parametrize("path", ["model.tar.xz", "model.tar.xz/w.bin"])
def test_a_member_in_the_place_of_its_archive_is_told(store: Store, path: str) -> None:
    error = Run(store, Memory({"model.tar.xz": packed([(member(path), b"1")])})).failure()
    assert error.kind is FailureKind.UNSUPPORTED
    assert f"named as the archive itself ({path})" in error.message


def test_an_archive_is_published_as_files_alone(store: Store) -> None:
    """Links are copies, what was replaced is gone, and the room is that of what is left."""
    members = [
        (member("w.bin"), b"old" * 5000),
        (member("gone.bin"), b"old" * 5000),
        (member("d/x"), b"1" * 5000),
        (member("latest", tarfile.SYMTYPE, linkname="d"), b""),
        (member("hard", tarfile.LNKTYPE, linkname="w.bin"), b""),
        (member("w.bin"), b"new"),
        (member("gone.bin", tarfile.SYMTYPE, linkname="nothing"), b""),
    ]
    manifest = Run(store, Memory({"model.tar.xz": packed(members)})).download.run()
    found = tree(store, KEY)
    assert found == {
        "w.bin": b"new",
        "d/x": b"1" * 5000,
        "latest/x": b"1" * 5000,
        "hard": b"old" * 5000,
    }
    assert manifest.hash == hash_of(found)
    files = [path for path in store.path(KEY).rglob("*") if not path.is_dir()]
    assert all(not path.is_symlink() and path.stat().st_nlink == 1 for path in files)
