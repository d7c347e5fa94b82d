"""An agent that starts on a disk that cannot be used yet."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from agent.disk.inventory import Inventory
from agent.disk.root import StoreError
from agent.disk.store import Store
from agent.disk.watch import DiskWatch, open_store
from agent.structs.failures import FailureKind
from tests.faults import mounts
from tests.faults.calls import Call, Calls, Fault, raising, watched
from tests.unit.agent.api_server import FakeServer, write_kubeconfig
from tests.unit.agent.commands import start
from tests.unit.agent.helpers import local_model, node_object, publish
from tests.unit.agent.servers import serving
from tests.unit.agent.test_pull import wait_for

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from agent.structs.failures import DownloadError

URI = "s3://bucket/model"
FILES = {"w.bin": b"weights"}


def broken(root: Path, code: int) -> AbstractContextManager[Calls]:
    """Nothing below the root can be changed."""

    def changes(call: Call) -> bool:
        return call.changes

    act = raising(lambda call: OSError(code, os.strerror(code), call.path))
    return watched(Calls(root, Fault(act, changes, Fault(act, changes)), 1))


def look(store: Store) -> DownloadError | None:
    watch = DiskWatch(store, Inventory(store))
    watch.look(())
    return watch.failure


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A disk with a model, and with one whose removal was interrupted."""
    store = Store(tmp_path / "node")
    store.open()
    publish(store, URI, FILES)
    (tmp_path / "node" / ".localmodel" / "fedcba9876543210" / "old").mkdir(parents=True)
    store.close()
    return tmp_path / "node"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EROFS, FailureKind.READ_ONLY), (errno.EIO, FailureKind.UNAVAILABLE)],
)
@pytest.mark.parametrize("is_new", [False, True])
def test_a_disk_that_cannot_be_changed_is_told_and_used_later(
    root: Path, code: int, kind: FailureKind, is_new: bool
) -> None:
    if is_new:
        shutil.rmtree(root)
        root.mkdir()
    store = Store(root)
    with broken(root, code):
        open_store(store)
        failure = look(store)
        assert failure is not None
        assert failure.kind is kind
        assert str(root) in failure.message
    assert look(store) is None
    assert store.is_open
    # It was recovered too.
    assert not (root / ".localmodel" / "fedcba9876543210").exists()
    with pytest.raises(StoreError, match="another agent"):
        Store(root).open()
    store.close()


def test_what_is_published_is_known_meanwhile(root: Path) -> None:
    store = Store(root)
    inventory = Inventory(store)
    with broken(root, errno.EROFS):
        open_store(store)
        DiskWatch(store, inventory).look(())
    assert [manifest.uri for _, _, manifest in inventory.published()] == [URI]


def test_nothing_is_begun_on_an_empty_directory_in_the_disks_place(root: Path) -> None:
    store = Store(root)
    with broken(root, errno.EROFS):
        open_store(store)
    root.rename(root.with_name("away"))
    root.mkdir()
    failure = look(store)
    assert failure is not None
    assert failure.kind is FailureKind.UNAVAILABLE
    assert list(root.iterdir()) == []
    root.rmdir()
    root.with_name("away").rename(root)
    assert look(store) is None
    store.close()


def test_another_agent_that_came_first_is_told_until_it_has_gone(root: Path) -> None:
    store, other = Store(root), Store(root)
    with broken(root, errno.EROFS):
        open_store(store)
    other.open()
    failure = look(store)
    assert failure is not None
    assert (failure.kind, "another agent" in failure.message) == (FailureKind.UNAVAILABLE, True)
    other.close()
    assert look(store) is None
    store.close()


def test_another_agent_or_a_wrong_root_ends_it_at_once(root: Path) -> None:
    other = Store(root)
    other.open()
    with pytest.raises(StoreError, match="another agent"):
        open_store(Store(root))
    other.close()
    with pytest.raises(StoreError, match=r"cannot use .* as the root"):
        open_store(Store(root / ".localmodel" / "lock" / "root"))


def conditions(fake: FakeServer) -> dict[str, str]:
    found = fake.patches[-1][2]["status"]["conditions"] if fake.patches else []
    return {condition["type"]: condition["reason"] for condition in found}


def states(fake: FakeServer) -> dict[str, str]:
    return {model["name"]: model["state"] for model in fake.patches[-1][2]["status"]["models"]}


@pytest.mark.timeout(120)  # an agent starts
def test_an_agent_on_a_read_only_mount_tells_it_and_heals_by_itself(tmp_path: Path) -> None:
    def unshared() -> str:
        try:
            mounts.own_namespace()
        except mounts.MountsError as error:
            return str(error)
        _on_a_read_only_mount(tmp_path)
        return ""

    # A thread of its own, for its mounts.
    with ThreadPoolExecutor(1) as pool:
        reason = pool.submit(unshared).result()
    if reason:
        pytest.skip(reason)


def _on_a_read_only_mount(folder: Path) -> None:
    disk, root = folder / "disk", folder / "root"
    for name in ("old", "new"):
        (folder / "source" / name).mkdir(parents=True)
        (folder / "source" / name / "w.bin").write_bytes(FILES["w.bin"])
    uris = {name: f"file://{folder}/source/{name}" for name in ("old", "new")}
    root.mkdir()
    store = Store(disk)
    store.open()
    publish(store, uris["old"], FILES)
    store.close()
    mounts.bind_read_only(disk, root)
    fake = FakeServer()
    fake.node = node_object(
        *(local_model(name, uri, model_size="1Ki") for name, uri in uris.items()),
        metadata={"name": "n", "uid": "u", "generation": 1, "resourceVersion": "10"},
    )
    with serving(fake) as server:
        arguments: list[Any] = ["--node-name", "n", "--root", root, "--progress-seconds", "0.5"]
        arguments += ["--kubeconfig", write_kubeconfig(folder / "kubeconfig", server.url)]
        arguments += ["--allow-file-dir", folder / "source"]
        with start("run", *arguments) as process:
            try:
                wait_for(lambda: conditions(fake).get("DiskReady") == "ReadOnly")
                assert states(fake) == {"old": "Downloaded", "new": "Failed"}
                mounts.take_off(root)
                mounts.bind(disk, root)
                wait_for(lambda: states(fake) == {"old": "Downloaded", "new": "Downloaded"}, 30)
                assert "DiskReady" not in conditions(fake)
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
            finally:
                process.kill()
                mounts.take_off(root)
