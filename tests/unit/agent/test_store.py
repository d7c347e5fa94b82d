from __future__ import annotations

import errno
import math
import os
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from agent.disk.on_disk import Disk, Found
from agent.disk.repair import has_others
from agent.disk.root import StoreError
from agent.disk.store import Store
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.manifest import Access, CacheName
from agent.structs.records import Evicted
from agent.structs.remote import RemoteFile
from agent.structs.sizes import EvictionReason
from crds.keys import model_key
from tests.unit.agent.helpers import publish, stage, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

URI = "s3://bucket/model"
OTHER = "s3://bucket/other"
KEY = model_key(URI)
FILES = {"config.json": b"{}", "deep/er/w.bin": b"weights", "empty": b""}


def test_published_model_is_there_as_a_whole_with_the_modes_pods_need(store: Store) -> None:
    old = os.umask(0o077)
    try:
        manifest = publish(store, URI, FILES)
    finally:
        os.umask(old)
    assert tree(store, KEY) == FILES
    copies, foreign = store.scan()
    assert copies[KEY].found is Found.PUBLISHED
    assert copies[KEY].manifest == manifest
    assert foreign == ()
    for path in (store.root / "models").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


def test_manifest_is_private_because_a_uri_may_hold_a_token(store: Store) -> None:
    publish(store, URI, FILES)
    path = store.root / ".localmodel" / KEY / "manifest.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_staging_is_invisible_to_pods(store: Store) -> None:
    stage(store, URI, FILES)
    assert tree(store, KEY) is None
    assert store.inspect(KEY).found is Found.STAGED


def test_a_new_download_starts_over(store: Store) -> None:
    stage(store, URI, {"old": b"1"})
    publish(store, URI, FILES)
    assert tree(store, KEY) == FILES


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ""])
def test_no_file_is_made_outside_its_model(store: Store, path: str) -> None:
    staging = store.staging(KEY)
    with pytest.raises(ValueError, match="path"):
        staging.begin(URI, None, [RemoteFile(path, path, 1)])
    with pytest.raises(ValueError, match="path"):
        staging.create(path)
    staging.close()


def test_empty_directory_of_kubelet_is_replaced(store: Store) -> None:
    (store.root / "models" / KEY).mkdir()
    assert store.scan() == ({}, ())
    publish(store, URI, FILES)
    assert tree(store, KEY) == FILES


def test_foreign_directory_is_reported_and_left_alone(store: Store) -> None:
    theirs = store.root / "models" / KEY
    theirs.mkdir()
    (theirs / "mine.txt").write_text("do not touch")
    (store.root / "models" / "file").write_text("nor this")
    assert store.scan()[1] == (KEY, "file")
    assert store.is_foreign(KEY)
    with pytest.raises(DownloadError) as caught:
        publish(store, URI, FILES)
    assert caught.value.kind is FailureKind.FOREIGN_DIRECTORY
    assert str(theirs) in caught.value.message
    store.remove(KEY)
    store.recover()
    assert tree(store, KEY) == {"mine.txt": b"do not touch"}


def test_foreign_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (store.root / "models" / KEY).symlink_to(tmp_path / "precious")
    assert store.scan()[1] == (KEY,)
    with pytest.raises(DownloadError):
        publish(store, URI, FILES)
    store.remove(KEY)
    assert (store.root / "models" / KEY).is_symlink()


@pytest.mark.parametrize("harm", ["missing", "shorter", "tree", "link", "manifest"])
def test_damage_is_found_without_reading_the_files(store: Store, tmp_path: Path, harm: str) -> None:
    publish(store, URI, FILES)
    root = store.root / "models" / KEY
    weights = root / "deep/er/w.bin"
    if harm == "missing":
        weights.unlink()
    elif harm == "shorter":
        weights.write_bytes(b"w")
    elif harm == "tree":
        shutil.rmtree(root)
    elif harm == "link":
        weights.unlink()
        (tmp_path / "elsewhere").write_bytes(b"weights")
        weights.symlink_to(tmp_path / "elsewhere")
    else:
        (store.root / ".localmodel" / KEY / "manifest.json").write_text("{")
    copy = store.inspect(KEY)
    assert copy.found is Found.DAMAGED
    assert copy.is_published
    assert copy.problem
    assert store.scan()[1] == ()

    publish(store, URI, FILES)
    assert tree(store, KEY) == FILES
    assert store.inspect(KEY).found is Found.PUBLISHED


def test_one_copy_replaces_another(store: Store) -> None:
    publish(store, URI, FILES)
    publish(store, URI, {"new": b"2"})
    assert tree(store, KEY) == {"new": b"2"}
    assert {path.name for path in (store.root / ".localmodel" / KEY).iterdir()} == {"manifest.json"}


def test_removal_leaves_nothing(store: Store) -> None:
    publish(store, URI, FILES)
    stage(store, URI, FILES)
    store.remove(KEY)
    assert store.scan() == ({}, ())
    assert [path.name for path in (store.root / ".localmodel").iterdir()] == ["lock"]
    store.remove(KEY)


def test_caches_can_be_noted_anew(store: Store) -> None:
    manifest = publish(store, URI, FILES)
    store.rewrite(structs.replace(manifest, caches=(CacheName(name="x"),)))
    found = store.inspect(KEY)
    assert found.found is Found.PUBLISHED
    assert found.manifest is not None
    assert found.manifest.caches == (CacheName(name="x"),)


def test_only_one_agent_works_on_a_root(store: Store) -> None:
    with pytest.raises(StoreError, match="another agent already works on"):
        Store(store.root).open()
    store.close()
    again = Store(store.root)
    again.open()
    again.close()


def test_root_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot use .* as the root"):
        Store(tmp_path / "file" / "root").open()


def test_disk_figures_are_those_of_the_file_system(store: Store) -> None:
    disk = store.disk()
    assert disk.capacity >= disk.used > 0
    assert disk.capacity >= disk.available > 0


def test_a_root_with_a_size_is_a_disk_of_its_own(tmp_path: Path) -> None:
    small = Store(tmp_path / "node", size=1 << 20)
    small.open()
    assert small.disk() == Disk(capacity=1 << 20, used=0, available=1 << 20)
    publish(small, URI, FILES)
    stage(small, OTHER, {"w": b"x" * (2 << 20)})
    theirs = small.root / "models" / "theirs"
    theirs.mkdir()
    (theirs / "w").write_bytes(b"x" * 8192)
    disk = small.disk()
    ours = sum(copy.tree_bytes + copy.staged_bytes for copy in small.scan()[0].values())
    # The notes beside the models take something too.
    assert ours + 8192 <= disk.used <= ours + 8192 + 10 * 4096
    assert disk.available == 0
    small.close()
    # It is no larger than the file system.
    large = Store(tmp_path / "node", size=1 << 60)
    assert large.disk().capacity < 1 << 60
    assert large.disk().available < 1 << 60


def test_what_a_model_takes_is_counted_in_blocks(store: Store) -> None:
    manifest = publish(store, URI, {"a": b"1", "deep/b": b"x" * 4097})
    copy = store.inspect(manifest.key)
    assert (copy.tree_bytes, copy.staged_bytes) == (3 * 4096, 0)
    assert store.download_bytes(manifest.key) == 3 * 4096
    # What is laid out and not yet written counts too, and beside what is published.
    stage(store, OTHER, {"w": b"x" * (2 << 20)})
    copy = store.inspect(model_key(OTHER))
    assert (copy.found, copy.tree_bytes) == (Found.STAGED, 0)
    assert copy.staged_bytes == store.download_bytes(model_key(OTHER)) == 2 << 20
    assert copy.announced == 2 << 20


def test_a_model_without_notes_is_as_old_as_its_manifest(store: Store) -> None:
    manifest = publish(store, URI, FILES)
    os.utime(store.root / ".localmodel" / manifest.key / "manifest.json", (1000, 1000))
    usage = store.inspect(manifest.key).usage
    assert usage is not None
    assert usage.age_from(datetime.now(UTC)) == 1000
    # After a clock was set back: nothing is younger.
    assert usage.age_from(datetime.fromtimestamp(10, UTC)) == math.inf


def test_a_staged_model_whose_sizes_are_wrong_is_not_published_after_a_restart(
    store: Store,
) -> None:
    manifest = stage(store, URI, FILES)
    meta = store.root / ".localmodel" / KEY
    (meta / "staged.json").write_bytes(manifest.encode())
    (meta / "files" / "config.json").write_text("{...}")
    store.recover()
    assert tree(store, KEY) is None
    assert not (meta / "staged.json").exists()
    assert store.inspect(KEY).found is Found.STAGED


@pytest.mark.parametrize("leaves", ["evict", "set_aside"])
def test_who_had_access_is_known_after_a_kill_too(
    store: Store, monkeypatch: pytest.MonkeyPatch, leaves: str
) -> None:
    manifest = publish(store, URI, FILES)
    access = Access(origin="s3://here", listing="", grants=())
    manifest = structs.replace(manifest, access=access)
    store.rewrite(manifest)
    note = Evicted(
        time=datetime(2026, 8, 1, tzinfo=UTC), size=1, reason=EvictionReason.REQUESTED, message=""
    )

    class KilledError(Exception):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as broken:
        # After the rename, before the next step.
        broken.setattr(Store, "_forget", killed)
        with pytest.raises(KilledError):
            store.evict(KEY, note) if leaves == "evict" else store.set_aside(manifest)
    store.recover()
    found = store.inspect(KEY)
    assert found.manifest is None
    assert found.access == access


def test_a_download_that_begins_anew_is_not_taken_for_the_complete_one(store: Store) -> None:
    manifest = stage(store, URI, FILES)
    theirs = store.root / "models" / KEY
    theirs.mkdir()
    (theirs / "theirs").write_text("x")
    with pytest.raises(DownloadError):
        store.publish(manifest)
    meta = store.root / ".localmodel" / KEY
    assert (meta / "staged.json").exists()
    shutil.rmtree(theirs)
    # The source has other files of the same sizes by now, and the agent is killed.
    changed = [RemoteFile(path, path, len(data), "v2") for path, data in FILES.items()]
    staging = store.staging(KEY)
    staging.begin(URI, None, changed)
    for file in changed:
        staging.staged[file.path].open()
        os.truncate(staging.path(file.path), file.size or 0)
    store.recover()
    assert tree(store, KEY) is None
    staging.close()


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(errno.EIO, "Input/output error"), None),
        (OSError(errno.EMFILE, "Too many open files"), None),
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
    ],
    ids=["EIO", "EMFILE", "EACCES", "ENOENT"],
)
def test_a_folder_that_cannot_be_read_is_not_empty(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: OSError, found: bool | None
) -> None:
    manifest = publish(store, URI, FILES)
    assert not has_others(store.path(KEY), manifest)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("os.scandir", fails)
    if found is None:
        with pytest.raises(OSError, match=error.strerror):
            has_others(store.path(KEY), manifest)
    else:
        assert has_others(store.path(KEY), manifest) is found


def test_a_foreign_folder_that_cannot_be_read_does_not_stop_the_scan(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, URI, FILES)
    for name in ("bad", "good", "empty"):
        (store.root / "models" / name).mkdir()
    (store.root / "models/good/theirs").write_text("x")
    iterdir = Path.iterdir

    def fails(path: Path) -> Iterator[Path]:
        if path.name == "bad":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", fails)
    copies, foreign = store.scan()
    assert copies[KEY].found is Found.PUBLISHED
    assert foreign == ("bad", "good")


def test_a_model_that_cannot_be_recovered_does_not_stop_the_others(store: Store) -> None:
    uris = [URI, "s3://bucket/other"]
    for uri in uris:
        manifest = stage(store, uri, FILES)
        meta = store.root / ".localmodel" / manifest.key
        (meta / "staged.json").write_bytes(manifest.encode())
    first, second = sorted(map(model_key, uris))
    (store.root / "models" / first).mkdir()
    (store.root / "models" / first / "theirs").write_text("x")
    store.recover()
    assert tree(store, first) == {"theirs": b"x"}
    assert tree(store, second) == FILES


def test_an_error_of_the_disk_is_no_damage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, URI, FILES)

    def fails(path: str | Path, *_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    for call in ("pathlib.Path.read_bytes", "os.lstat"):
        with monkeypatch.context() as broken:
            broken.setattr(call, fails)
            found = store.inspect(KEY)
            assert found.found is Found.UNREADABLE
            assert "Too many open files" in found.problem
            _, foreign = store.scan()
            assert foreign == ()
    assert store.inspect(KEY).found is Found.PUBLISHED
