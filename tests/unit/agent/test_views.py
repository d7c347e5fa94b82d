"""What the volume of one model shows: the very files of its copy, whole, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.disk.on_disk import Found
from agent.disk.store import Store
from agent.disk.views import Views
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.records import Evicted
from agent.structs.sizes import EvictionReason
from crds.keys import model_key
from tests.faults.calls import Call, Calls, Fault, raising, watched
from tests.faults.disk import write_tree
from tests.unit.agent.growth import assert_grows_no_faster_than_its_input
from tests.unit.agent.helpers import hidden, manifest_of, publish, stage, tree, view
from tests.unit.agent.rights import (
    DAC_OVERRIDE,
    DAC_READ_SEARCH,
    FOWNER,
    SOMEBODY,
    needs_root,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.structs.manifest import Manifest

URI = "s3://bucket/model"
KEY = model_key(URI)
OTHER = "s3://bucket/other"
FILES = {"config.json": b"{}", "deep/er/w.bin": b"weights", "deep/t.txt": b"t", "empty": b""}
NOTE = Evicted(
    time=datetime(2026, 8, 1, 12, tzinfo=UTC), size=1, reason=EvictionReason.MADE_ROOM, message=""
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "node", makes_views=True)
    store.open()
    yield store
    store.close()


def check_shown(store: Store, files: dict[str, bytes] | None = None) -> None:
    """The view has these files, which are those of the copy, and the agent knows that."""
    wanted = FILES if files is None else files
    assert view(store, KEY) == wanted
    for path in wanted:
        assert (store.views.path(KEY) / path).samefile(store.path(KEY) / path)
    copy = store.inspect(KEY)
    assert copy.found is Found.PUBLISHED
    assert not copy.lacks_view
    assert hidden(store) == []


def test_a_published_copy_is_shown_with_the_modes_that_pods_need(store: Store) -> None:
    old = os.umask(0o077)
    try:
        publish(store, URI, FILES)
        publish(store, OTHER, {"w": b"other"})
    finally:
        os.umask(old)
    check_shown(store)
    volume = store.root / "volumes" / KEY
    assert [path.name for path in volume.iterdir()] == ["models"]
    assert [path.name for path in (volume / "models").iterdir()] == [KEY]
    for path in (volume, *volume.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)
    # A view is no model, and takes no room.
    copies, foreign = store.scan()
    assert (len(copies), foreign) == (2, ())


def test_the_bytes_of_a_view_count_once(tmp_path: Path) -> None:
    used = []
    for makes_views in (False, True):
        store = Store(tmp_path / str(makes_views), size=1 << 30, makes_views=makes_views)
        store.open()
        publish(store, URI, {"w": bytes(1 << 20)})
        used.append(store.disk().used)
        assert store.inspect(KEY).tree_bytes == 1 << 20
        store.close()
    assert used[0] == used[1]


def test_the_folder_of_a_volume_is_there_before_the_model(store: Store) -> None:
    store.views.make_folder(KEY)
    folder = store.root / "volumes" / KEY / "models"
    before = folder.stat().st_ino
    assert list(folder.iterdir()) == []
    assert store.views.folders() == {KEY}
    publish(store, URI, FILES)
    check_shown(store)
    # A pod that has mounted it sees the model.
    assert folder.stat().st_ino == before
    store.remove(KEY)
    assert view(store, KEY) is None
    assert folder.stat().st_ino == before
    store.views.delete_folder(KEY)
    assert store.views.folders() == set()
    assert not folder.parent.exists()
    # What is not there can be deleted.
    store.views.delete_folder(KEY)


def test_without_the_setting_only_former_views_are_kept_up(tmp_path: Path) -> None:
    with_views = Store(tmp_path, makes_views=True)
    with_views.open()
    publish(with_views, URI, FILES)
    with_views.close()
    store = Store(tmp_path)
    store.open()
    store.recover()
    publish(store, OTHER, {"w": b"x"})
    assert view(store, model_key(OTHER)) is None
    assert not store.inspect(model_key(OTHER)).lacks_view
    store.views.make_folder(model_key(OTHER))
    assert store.views.folders() == {KEY}
    # A pod of a former volume may be there.
    check_shown(store)
    publish(store, URI, {"new": b"1"})
    check_shown(store, {"new": b"1"})
    store.close()


WAYS: dict[str, Callable[[Store, Manifest], object]] = {
    "evict": lambda store, _: store.evict(KEY, NOTE),
    "remove": lambda store, _: store.remove(KEY),
    "set_aside": lambda store, manifest: store.set_aside(manifest),
    "salvage": lambda store, _: store.salvage(KEY, store.inspect(KEY), lambda: False),
    "replace": lambda store, _: store.publish(manifest_of(URI, {"new": b"1"})),
}


def go(store: Store, way: str, calls: Calls, files: dict[str, bytes]) -> None:
    """Take a copy away in this way, and look at its view after each call."""
    manifest = publish(store, URI, files)
    if way == "replace":
        stage(store, URI, {"new": b"1"})

    def look(call: Call) -> None:
        assert view(store, KEY) in (None, tree(store, KEY)), call

    calls.after = look
    with watched(calls):
        WAYS[way](store, manifest)


@pytest.mark.parametrize("way", WAYS)
def test_a_view_goes_before_its_copy(store: Store, way: str) -> None:
    go(store, way, Calls(store.root), FILES)
    assert view(store, KEY) == tree(store, KEY) == ({"new": b"1"} if way == "replace" else None)


@pytest.mark.timeout(120)  # about fifty copies
@pytest.mark.parametrize("way", WAYS)
def test_a_view_goes_before_its_copy_whatever_call_fails(tmp_path: Path, way: str) -> None:
    fault = Fault(raising(lambda call: OSError(errno.EIO, os.strerror(errno.EIO), call.path)))
    failed = 0
    for number in count(1):
        store = Store(tmp_path / str(number), makes_views=True)
        store.open()
        calls = Calls(store.root, fault, number)
        try:
            go(store, way, calls, {"w": b"weights"})
        except OSError:
            failed += 1
        assert view(store, KEY) in (None, tree(store, KEY))
        store.close()
        if not calls.struck:
            break
    assert failed > 10


def delete(view: Path) -> None:
    (view / "deep/t.txt").unlink()


def replace(view: Path) -> None:
    (view / "config.json").unlink()
    (view / "config.json").write_bytes(b"{}")


def add(view: Path) -> None:
    write_tree(view, {"deep/more": b"x", "other/more": b"x"})


def put_folder(view: Path) -> None:
    (view / "empty").unlink()
    (view / "empty").mkdir()


def put_file(view: Path) -> None:
    (view / "deep/er/w.bin").unlink()
    (view / "deep/er").rmdir()
    (view / "deep/er").write_bytes(b"x")


@pytest.mark.parametrize("harm", [delete, replace, add, put_folder, put_file])
def test_a_view_that_differs_is_noticed_and_mended(
    store: Store, harm: Callable[[Path], None]
) -> None:
    publish(store, URI, FILES)
    harm(store.views.path(KEY))
    copy = store.inspect(KEY)
    assert (copy.found, copy.lacks_view, copy.is_whole) == (Found.PUBLISHED, True, False)
    before = store.views.path(KEY).stat().st_ino
    assert store.finish_view(KEY) is not None
    check_shown(store)
    if harm not in (put_folder, put_file):
        # A pod may have mounted it.
        assert store.views.path(KEY).stat().st_ino == before
    assert store.finish_view(KEY) is None


def test_a_repaired_file_is_linked_anew_under_the_pods(store: Store) -> None:
    manifest = publish(store, URI, FILES)
    os.truncate(store.path(KEY) / "deep/er/w.bin", 3)
    assert store.inspect(KEY).found is Found.DAMAGED
    before = store.views.path(KEY).stat().st_ino
    stage_bad(store)
    store.mend(manifest, ["deep/er/w.bin"])
    check_shown(store)
    assert store.views.path(KEY).stat().st_ino == before


def stage_bad(store: Store) -> None:
    stage(store, URI, {"deep/er/w.bin": FILES["deep/er/w.bin"]})


def test_views_are_made_and_deleted_at_a_start(tmp_path: Path) -> None:
    before = Store(tmp_path)
    before.open()
    publish(before, URI, FILES)
    before.close()
    other = model_key(OTHER)
    left = {"new": ".new/" + KEY, "old": ".old/" + KEY, "gone": f"{other}/models/{other}"}
    for path in left.values():
        write_tree(tmp_path / "volumes" / path, {"w": b"x"})
    store = Store(tmp_path, makes_views=True)
    store.open()
    assert store.inspect(KEY).lacks_view
    store.recover()
    check_shown(store)
    assert view(store, other) is None
    # A pod may refer to the folder: the loop says when it goes.
    assert store.views.folders() == {KEY, other}
    copies, foreign = store.scan()
    assert (list(copies), foreign) == ([KEY], ())
    store.close()


def test_a_damaged_copy_keeps_its_view(store: Store) -> None:
    publish(store, URI, FILES)
    (store.path(KEY) / "empty").unlink()
    store.recover()
    assert store.inspect(KEY).found is Found.DAMAGED
    assert view(store, KEY) == FILES


def test_an_adopted_folder_is_shown_without_what_is_not_the_models(store: Store) -> None:
    write_tree(store.path(KEY), {**FILES, ".cache/token": b"s3cret"})
    assert store.is_foreign(KEY)
    assert view(store, KEY) is None
    store.adopt(manifest_of(URI, FILES), [])
    assert view(store, KEY) == FILES
    assert (store.path(KEY) / ".cache/token").exists()


def test_a_link_in_an_adopted_folder_is_not_followed(store: Store, tmp_path: Path) -> None:
    manifest = publish(store, URI, FILES)
    store.views.drop(KEY)
    secret = tmp_path / "secret"
    write_tree(secret, {"w.bin": b"s3cret!"})
    (store.path(KEY) / "deep/er/w.bin").unlink()
    (store.path(KEY) / "deep/er").rmdir()
    (store.path(KEY) / "deep/er").symlink_to(secret)
    with pytest.raises(OSError, match="Not a directory"):
        store.views.make(store.path(KEY), manifest)
    assert view(store, KEY) is None


def test_the_mode_of_a_file_with_a_view_is_restored(store: Store, tmp_path: Path) -> None:
    manifest = publish(store, URI, FILES)
    path = store.path(KEY) / "deep/er/w.bin"
    path.chmod(0o600)
    assert list(store.open_up(manifest)) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    # Not where it would become readable elsewhere too.
    path.chmod(0o600)
    os.link(path, tmp_path / "elsewhere")
    ((name, problem),) = store.open_up(manifest)
    assert name == "deep/er/w.bin"
    assert "hard links" in problem


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_is_named(store: Store, code: int) -> None:
    stage(store, URI, FILES)
    act = raising(lambda call: OSError(code, os.strerror(code), call.path))
    with (
        watched(Calls(store.root, Fault(act, lambda call: call.name == "link"), 1)),
        pytest.raises(DownloadError) as failure,
    ):
        store.publish(manifest_of(URI, FILES))
    assert failure.value.kind is FailureKind.NO_LINKS
    assert os.strerror(code) in failure.value.message
    assert "LOCALMODEL_VOLUMES=root" in failure.value.message
    # The copy is published, and nothing shows a part of it.
    copy = store.inspect(KEY)
    assert (copy.found, copy.lacks_view) == (Found.PUBLISHED, True)
    assert view(store, KEY) is None
    store.finish_view(KEY)
    check_shown(store)


@needs_root
@pytest.mark.skipif(
    Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1",
    reason="the kernel lets everybody link every file",
)
def test_files_of_another_user_need_a_capability(store: Store) -> None:
    """As in the base, whose agents have none: Linux protects hard links."""
    write_tree(store.path(KEY), FILES)
    for path in (store.path(KEY), *store.path(KEY).rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    with (
        without(DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER),
        pytest.raises(DownloadError) as failure,
    ):
        store.adopt(manifest_of(URI, FILES), [])
    assert failure.value.kind is FailureKind.NO_LINKS
    assert "capability FOWNER" in failure.value.message
    assert view(store, KEY) is None
    with without(DAC_OVERRIDE, DAC_READ_SEARCH):
        store.finish_view(KEY)
    check_shown(store)


@pytest.mark.timeout(60)  # hundreds of files, counted call by call
def test_work_grows_with_the_number_of_files(tmp_path: Path) -> None:
    def prepare(count: int) -> tuple[Views, Path, Manifest]:
        files = {f"shards/{n % 5}/part-{n}": b"x" for n in range(4 * count)}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write_tree(folder / "tree", files)
        return Views(folder / "volumes", makes=True), folder / "tree", manifest_of(URI, files)

    def making(count: int) -> Callable[[], object]:
        views, folder, manifest = prepare(count)
        return lambda: views.make(folder, manifest)

    def looking(count: int) -> Callable[[], object]:
        views, folder, manifest = prepare(count)
        views.make(folder, manifest)
        return lambda: views.shows(folder, manifest)

    def dropping(count: int) -> Callable[[], object]:
        views, folder, manifest = prepare(count)
        views.make(folder, manifest)
        return lambda: views.drop(manifest.key)

    for work in (making, looking, dropping):
        assert_grows_no_faster_than_its_input(work)
