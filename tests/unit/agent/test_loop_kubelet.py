"""The loop on a small disk that the kubelet uses too."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from agent.disk.kubelet_disk import BOTH, KubeletDisk
from agent.disk.store import Store
from agent.structs.kubelet import DEFAULT_THRESHOLDS, FileSystem, Thresholds, parse_thresholds
from crds.eviction import EvictionPolicy
from tests.faults import mounts
from tests.unit.agent.api_server import FakeServer, write_kubeconfig
from tests.unit.agent.commands import TREE, command, environment
from tests.unit.agent.crowded import (
    TAKES,
    entry,
    fill,
    limit,
    models,
    prepare,
    ready,
    told,
    use,
)
from tests.unit.agent.helpers import local_model, node_object
from tests.unit.agent.servers import WebFiles, serving
from tests.unit.agent.test_disk_at_start import conditions, states
from tests.unit.agent.test_disk_moved import in_mounts_of_its_own
from tests.unit.agent.test_pull import wait_for
from tests.unit.agent.world import DATA, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DISK = 4 << 20
# With two models beside it, a third would leave 14 % of the disk available.
IMAGES = int(1.4 * (1 << 20))


def on_a_disk(
    folder: Path,
    test: Callable[[World], None],
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    shared: frozenset[FileSystem] | None = BOTH,
) -> None:
    """Run a test with an agent whose root is on a disk of DISK bytes with IMAGES beside it."""

    def work() -> None:
        disk = folder / "disk"
        mounts.memory_disk(disk, DISK)
        (disk / "images").write_bytes(bytes(IMAGES))
        web = WebFiles({f"/{name}.bin": name.encode() + DATA for name in "abc"})
        with serving(web) as server:
            world = World(disk / "root", web, server)
            world.store.close()
            world.store = Store(world.root, kubelet=KubeletDisk(thresholds, shared))
            prepare(world)
            limit(world, 10)
            try:
                test(world)
            finally:
                world.loop.stop()
                world.loop.step()
                world.store.close()

    in_mounts_of_its_own(work)


def images(world: World) -> Path:
    return world.root.with_name("images")


def available(world: World) -> float:
    """The percentage that the kubelet sees."""
    figures = os.statvfs(world.root)
    return 100 * figures.f_bavail / figures.f_blocks


def condition(world: World, kind: str) -> dict[str, Any] | None:
    return next((c for c in world.status()["conditions"] if c["type"] == kind), None)


def test_models_go_before_the_kubelet_takes_images(tmp_path: Path) -> None:
    def test(world: World) -> None:
        fill(world, "ab")
        world.want(*models(world, "abc"))
        world.settle()
        assert world.states() == {"a": "Evicted", "b": "Downloaded", "c": "Downloaded"}
        assert entry(world, "a")["reason"] == "MadeRoom"
        assert available(world) > 17
        # An image is pulled that takes what is left.
        images(world).write_bytes(bytes(IMAGES + TAKES))
        world.step(60)
        world.settle()
        assert world.states() == {"a": "Evicted", "b": "Evicted", "c": "Downloaded"}
        b = entry(world, "b")
        assert b["reason"] == "DiskPressure"
        assert (
            "because less than 17% of the node's disk were available, which the kubelet uses too, "
            "with imageGCHighThresholdPercent=85"
        ) in b["message"]
        assert available(world) > 17

    on_a_disk(tmp_path, test)


@pytest.mark.parametrize("policy", EvictionPolicy)
def test_a_download_waits_where_nothing_can_go(tmp_path: Path, policy: EvictionPolicy) -> None:
    def test(world: World) -> None:
        limit(world, 10, policy)
        fill(world, "ab")
        use(world, "a", "b")
        world.want(*models(world, "abc"))
        world.settle()
        assert world.states() == {"a": "Downloaded", "b": "Downloaded", "c": "Pending"}
        c = entry(world, "c")
        assert c["reason"] == "KubeletThreshold"
        assert "attempts" not in c
        assert "it needs 684Ki" in c["message"]
        assert "with imageGCHighThresholdPercent=85" in c["message"]
        assert "leaves 17% (696.3Ki) of it available" in c["message"]
        assert "--kubelet-thresholds" in c["message"]
        assert (ready(world)["status"], ready(world)["reason"]) == ("False", "KubeletThreshold")
        world.step(60)
        world.settle()
        assert len(told(world, "KubeletThreshold")) == 1
        assert told(world, "DownloadFailed") == []
        assert available(world) > 17
        # Somebody frees space.
        images(world).unlink()
        world.step(60)
        world.settle()
        assert set(world.states().values()) == {"Downloaded"}

    on_a_disk(tmp_path, test)


def test_the_condition_says_what_counts_and_stays_as_it_is(tmp_path: Path) -> None:
    def test(world: World) -> None:
        fill(world, "a")
        shared = condition(world, "DiskShared")
        assert shared is not None
        assert (shared["status"], shared["reason"]) == ("True", "DefaultThresholds")
        assert shared["message"] == (
            "the agent's root is on the kubelet's imagefs and nodefs (--kubelet-file-systems), "
            "with imageGCHighThresholdPercent=85, nodefs.available=10%, imagefs.available=15% "
            "(the documented defaults; if the kubelet has others, set --kubelet-thresholds). The "
            "models leave 17% (696.3Ki) of this file system available: past that, downloads wait "
            "and groups evict, as if their highPercent was at most 83"
        )
        assert (ready(world)["status"], ready(world)["reason"]) == ("True", "AllCached")
        images(world).write_bytes(bytes(2 * IMAGES))
        world.want(*models(world, "ab"))
        world.step(60)
        world.settle()
        assert condition(world, "DiskShared") == {**shared, "observedGeneration": 2}
        world.restart()
        world.want(*models(world, "ab"))
        world.settle()
        again = condition(world, "DiskShared")
        assert again is not None
        assert again["lastTransitionTime"] == shared["lastTransitionTime"]

    on_a_disk(tmp_path, test)


def test_other_thresholds_leave_more_or_less(tmp_path: Path) -> None:
    def test(world: World) -> None:
        limit(world, 10, EvictionPolicy.NONE)
        world.want(*models(world, "abc"))
        world.settle()
        assert set(world.states().values()) == {"Downloaded"}
        shared = condition(world, "DiskShared")
        assert shared is not None
        assert shared["reason"] == "GivenThresholds"
        assert "nodefs.available=256Ki (--kubelet-thresholds of the agent)" in shared["message"]

    on_a_disk(
        tmp_path, test, parse_thresholds("nodefs.available=256Ki"), frozenset({FileSystem.NODEFS})
    )


@pytest.mark.parametrize(
    ("thresholds", "shared"), [(DEFAULT_THRESHOLDS, frozenset()), (parse_thresholds("off"), BOTH)]
)
def test_a_disk_of_its_own_is_filled_as_the_groups_say(
    tmp_path: Path, thresholds: Thresholds, shared: frozenset[FileSystem]
) -> None:
    def test(world: World) -> None:
        limit(world, 10, EvictionPolicy.NONE)
        world.want(*models(world, "abc"))
        world.settle()
        assert set(world.states().values()) == {"Downloaded"}
        assert condition(world, "DiskShared") is None
        assert available(world) < 15

    on_a_disk(tmp_path, test, thresholds, shared)


@pytest.mark.timeout(120)  # an agent starts
def test_an_agent_does_so_by_its_flags(tmp_path: Path) -> None:
    in_mounts_of_its_own(lambda: _by_flags(tmp_path))


def _by_flags(folder: Path) -> None:
    disk, source = folder / "disk", folder / "source"
    mounts.memory_disk(disk, DISK)
    (disk / "images").write_bytes(bytes(IMAGES))
    for name in ("small", "large"):
        (source / name).mkdir(parents=True)
    (source / "small" / "w.bin").write_bytes(DATA)
    (source / "large" / "w.bin").write_bytes(3 * DATA)
    fake = FakeServer()
    fake.node = node_object(
        *(local_model(name, f"file://{source}/{name}") for name in ("small", "large")),
        metadata={"name": "n", "uid": "u", "generation": 1, "resourceVersion": "10"},
    )
    with serving(fake) as server:
        arguments: list[Any] = ["--node-name", "n", "--root", disk / "root"]
        arguments += ["--kubeconfig", write_kubeconfig(folder / "kubeconfig", server.url)]
        arguments += ["--allow-file-dir", source, "--kubelet-file-systems", "imagefs"]
        arguments += ["--kubelet-thresholds", "imagefs.available=20%"]
        with subprocess.Popen(command("run", *arguments), cwd=TREE, env=environment()) as process:
            try:
                wait_for(
                    lambda: (
                        bool(fake.patches)
                        and states(fake) == {"small": "Downloaded", "large": "Pending"}
                    ),
                    60,
                )
                assert conditions(fake)["DiskShared"] == "GivenThresholds"
                assert conditions(fake)["Ready"] == "KubeletThreshold"
            finally:
                process.kill()
