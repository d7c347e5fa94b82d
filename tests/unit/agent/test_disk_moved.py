"""Another disk where the agent's folders were."""

from __future__ import annotations

import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from agent.disk.identity import MovedError
from agent.disk.root import StoreError
from agent.disk.store import Store
from tests.faults import mounts
from tests.unit.agent.api_server import FakeServer, write_kubeconfig
from tests.unit.agent.commands import TREE, command, environment
from tests.unit.agent.helpers import local_model, node_object, stage, tree
from tests.unit.agent.servers import serving
from tests.unit.agent.test_disk_at_start import conditions, states
from tests.unit.agent.test_pull import wait_for
from tests.unit.agent.world import GRACE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.agent.world import World

URI = "s3://bucket/model"
FILES = {"w.bin": b"weights"}


def in_mounts_of_its_own(work: Callable[[], None]) -> None:
    """Do it in a thread of its own, for its mounts; skipped where there are none to be had."""

    def unshared() -> str:
        try:
            mounts.own_namespace()
        except mounts.MountsError as error:
            return str(error)
        work()
        return ""

    with ThreadPoolExecutor(1) as pool:
        reason = pool.submit(unshared).result()
    if reason:
        pytest.skip(reason)


def put_away(root: Path) -> Path:
    """The root's folders are elsewhere, and others are in their place."""
    away = root.with_name("away")
    root.rename(away)
    other = Store(root)
    other.open()
    other.close()
    return away


@pytest.mark.parametrize(
    "change",
    [
        lambda store, manifest: store.publish(manifest),
        lambda store, manifest: store.adopt(manifest, ()),
        lambda store, manifest: store.rewrite(manifest),
        lambda store, manifest: store.remove(manifest.key),
        lambda store, manifest: store.discard(manifest.key),
        lambda store, manifest: store.evict(manifest.key, None),
        lambda store, manifest: store.mend(manifest, ["w.bin"]),
        lambda store, manifest: store.salvage(manifest.key, store.inspect(manifest.key), bool),
        lambda store, manifest: store.staging(manifest.key),
        lambda store, manifest: store.note_failed(manifest.key, None),
        lambda store, _: store.scan(),
        lambda store, _: store.probe(),
    ],
)
def test_nothing_is_changed_nor_believed_in_another_disks_folders(
    tmp_path: Path, change: Callable[[Store, Any], None]
) -> None:
    root = tmp_path / "node"
    store = Store(root)
    store.open()
    manifest = stage(store, URI, FILES)
    away = put_away(root)
    # As if another agent had left a half of the same model there.
    shutil.copytree(away / ".localmodel" / manifest.key, root / ".localmodel" / manifest.key)
    before = sorted(root.rglob("*"))
    with pytest.raises(MovedError):
        change(store, manifest)
    assert sorted(root.rglob("*")) == before
    shutil.rmtree(root)
    away.rename(root)
    store.publish(manifest)
    assert tree(store, manifest.key) == FILES
    store.close()


def test_a_store_whose_place_could_not_be_identified_is_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "node"
    store = Store(root)

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("agent.disk.store.identify", fails)
        with pytest.raises(StoreError, match="Input/output error"):
            store.open()
    store.open()
    put_away(root)
    with pytest.raises(MovedError):
        store.check_place()
    store.close()


def test_a_loop_on_another_disk_forgets_nothing_and_touches_nothing(world: World) -> None:
    world.want(world.model("a"))
    world.settle()
    away = put_away(world.root)
    # What is no longer wanted, and what is.
    world.want(world.model("b"))
    asked = len(world.server.seen)
    for _ in range(5):
        world.step(GRACE)
    condition = {c["type"]: c for c in world.status()["conditions"]}["DiskReady"]
    assert (condition["status"], condition["reason"]) == ("False", "OtherDisk")
    assert "restart the agent" in condition["message"]
    assert [event.reason for event in world.events].count("OtherDisk") == 1
    assert len(world.server.seen) == asked
    assert list((world.root / "models").iterdir()) == []
    assert not world.loop.begins_anew
    # It is back: what it had is as it was.
    shutil.rmtree(world.root)
    away.rename(world.root)
    world.want(world.model("a"), world.model("b"))
    world.step(10)
    world.settle()
    assert world.states() == {"a": "Downloaded", "b": "Downloaded"}
    assert "DiskReady" not in {c["type"] for c in world.status()["conditions"]}
    assert len([key for key in world.server.seen if "/a.bin" in key[1]]) <= asked


def test_a_mount_over_the_root_is_told_from_one_that_is_taken_off(tmp_path: Path) -> None:
    def work() -> None:
        root = tmp_path / "root"
        store = Store(root)
        store.open()
        store.check_place()
        mounts.memory_disk(tmp_path / "empty", 1 << 20)
        mounts.bind(tmp_path / "empty", root)
        with pytest.raises(MovedError) as covered:
            store.check_place()
        assert covered.value.is_covered
        # One of the same file system, with the layout, is another one too.
        mounts.take_off(root)
        store.check_place()
        other = Store(tmp_path / "other")
        other.open()
        other.close()
        mounts.bind(tmp_path / "other", root)
        with pytest.raises(MovedError) as covered:
            store.check_place()
        assert covered.value.is_covered
        store.close()
        # From there, and back to what was below.
        store.open()
        mounts.take_off(root)
        with pytest.raises(MovedError) as off:
            store.check_place()
        assert not off.value.is_covered
        mounts.bind(tmp_path / "other", root)
        store.check_place()
        store.close()

    in_mounts_of_its_own(work)


@pytest.mark.timeout(240)  # an agent starts twice
def test_an_agent_begins_anew_on_a_disk_that_is_mounted_over_its_root(tmp_path: Path) -> None:
    in_mounts_of_its_own(lambda: _mounted_later(tmp_path))


def _mounted_later(folder: Path) -> None:
    """As on a node: the host's mounts come into the agent's namespace, and not the other way."""
    host = folder / "host"
    mounts.memory_disk(host, 16 << 20)
    root, source = host / "root", folder / "source"
    for name in ("old", "new"):
        (source / name).mkdir(parents=True)
        (source / name / "w.bin").write_bytes(name.encode())
    uris = {name: f"file://{source}/{name}" for name in ("old", "new")}
    root.mkdir()
    below = folder / "below"
    below.mkdir()
    # A way to what will be hidden.
    mounts.bind(root, below)
    mounts.share(host)
    fake = FakeServer()
    fake.node = _node({"old": uris["old"]}, "10")
    with serving(fake) as server:
        arguments: list[Any] = ["--node-name", "n", "--root", root, "--progress-seconds", "0.5"]
        arguments += ["--kubeconfig", write_kubeconfig(folder / "kubeconfig", server.url)]
        arguments += ["--allow-file-dir", source]
        apart = ["unshare", "--mount", "--propagation", "slave"]
        with subprocess.Popen(
            [*apart, *command("run", *arguments)], cwd=TREE, env=environment()
        ) as process:
            try:
                wait_for(lambda: bool(fake.patches) and states(fake) == {"old": "Downloaded"}, 30)
                hidden = sorted(path for path in below.rglob("*"))
                mounts.memory_disk(folder / "disk", 16 << 20)
                mounts.bind(folder / "disk", root)
                # Something happens, so that it looks at once.
                fake.watches.put([{"type": "MODIFIED", "object": fake.node}])
                wait_for(lambda: _told(fake) == "OtherDisk", 60)
                # It has not begun anew yet, and what it had is still known.
                assert states(fake) == {"old": "Downloaded"}
                assert list((folder / "disk").iterdir()) == []
                wait_for(lambda: "DiskReady" not in conditions(fake), 60)
                wait_for(lambda: len(list((folder / "disk" / "models").glob("*/w.bin"))) == 1, 30)
                assert sorted(path for path in below.rglob("*")) == hidden
                assert process.poll() is None
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
            finally:
                process.kill()


def _node(uris: dict[str, str], version: str) -> dict[str, Any]:
    return node_object(
        *(local_model(name, uri, model_size="1Ki") for name, uri in uris.items()),
        metadata={"name": "n", "uid": "u", "generation": 1, "resourceVersion": version},
    )


def _told(fake: FakeServer) -> str | None:
    return conditions(fake).get("DiskReady")
