"""Which of the kubelet's file systems the root is on: in real mounts, as those of a pod."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.disk import kubelet_disk
from agent.disk.kubelet_disk import BOTH, KubeletDisk, sharing_of
from agent.disk.store import Store
from agent.structs.kubelet import (
    DEFAULT_THRESHOLDS,
    FileSystem,
    SharedBy,
    Sharing,
    parse_thresholds,
)
from tests.faults import mounts
from tests.unit.agent.test_disk_moved import in_mounts_of_its_own

POD = "1f0f3a52-8a5e-4d1c-9a39-0c0b5d3f7e11"
MIB = 1 << 20


@dataclass(frozen=True)
class Node:
    """Folders on the disks of a node: of the kubelet, of the container runtime, and the root."""

    kubelet: Path
    images: Path
    root: Path

    def enter_pod(self, top: Path) -> Path:
        """Make this thread see what a container of the agent's pod sees. Returns its root."""
        hosts = self.kubelet / "pods" / POD / "etc-hosts"
        hosts.parent.mkdir(parents=True)
        hosts.touch()
        for name in ("upper", "work"):
            (self.images / name).mkdir(parents=True)
        self.root.mkdir(parents=True)
        top.mkdir()
        options = f"lowerdir=/,upperdir={self.images}/upper,workdir={self.images}/work"
        try:
            subprocess.run(
                ["mount", "-t", "overlay", "overlay", "-o", options, str(top)],
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no overlay: {error}")
        place = top / "agent-root"
        place.mkdir()
        for source, target in (("/proc", "proc"), (hosts, "etc/hosts"), (self.root, place.name)):
            subprocess.run(["mount", "--bind", str(source), str(top / target)], check=True)
        os.chroot(top)
        os.chdir("/")
        return Path("/agent-root")


@pytest.mark.parametrize(
    ("kubelet", "images", "shared"),
    [
        ("one", "one", BOTH),
        ("two", "two", frozenset()),
        ("one", "two", {FileSystem.NODEFS}),
        ("two", "one", {FileSystem.IMAGEFS}),
    ],
)
def test_a_pod_finds_out_what_its_root_shares(
    tmp_path: Path, kubelet: str, images: str, shared: frozenset[FileSystem]
) -> None:
    def work() -> None:
        # Both are equally large, as are the disks of most nodes.
        for name in ("one", "two"):
            mounts.memory_disk(tmp_path / name, 16 * MIB)
        node = Node(
            tmp_path / kubelet / "kubelet", tmp_path / images / "images", tmp_path / "one" / "root"
        )
        root = node.enter_pod(tmp_path / "container")
        assert sharing_of(root) == Sharing(frozenset(shared))

    in_mounts_of_its_own(work)


def test_a_process_beside_the_kubelet_compares_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet_disk, "KUBELET_PODS", tmp_path / "pods")
    monkeypatch.setattr(kubelet_disk, "_IN_POD", tmp_path / "none")
    monkeypatch.setattr(kubelet_disk, "_OF_POD", re.compile("^never$"))
    assert sharing_of(tmp_path) == Sharing()
    (tmp_path / "pods").mkdir()
    found = sharing_of(tmp_path)
    assert FileSystem.NODEFS in found.file_systems

    def work() -> None:
        mounts.memory_disk(tmp_path / "disk", MIB)
        assert FileSystem.NODEFS not in sharing_of(tmp_path / "disk").file_systems

    in_mounts_of_its_own(work)


def test_a_pod_that_cannot_find_out_takes_the_disk_for_the_kubelets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet_disk, "_MOUNTS", tmp_path / "none")
    monkeypatch.setattr(kubelet_disk, "_IN_POD", tmp_path)
    assert sharing_of(tmp_path) == Sharing(BOTH, SharedBy.ASSUMED)


def test_a_person_may_say_it(tmp_path: Path) -> None:
    given = frozenset({FileSystem.NODEFS})
    assert KubeletDisk(DEFAULT_THRESHOLDS, given).sharing_of(tmp_path / "none") == Sharing(
        given, SharedBy.GIVEN
    )


def test_what_was_found_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = KubeletDisk(DEFAULT_THRESHOLDS)
    found = disk.sharing_of(tmp_path)
    monkeypatch.setattr(kubelet_disk, "_MOUNTS", tmp_path / "none")
    monkeypatch.setattr(kubelet_disk, "_IN_POD", tmp_path)
    assert disk.sharing_of(tmp_path) == found


@pytest.mark.parametrize("size", [None, 4 * MIB])
def test_a_store_leaves_the_kubelet_what_it_needs(tmp_path: Path, size: int | None) -> None:
    def work() -> None:
        disk = tmp_path / "disk"
        mounts.memory_disk(disk, 16 * MIB)
        (disk / "image").write_bytes(bytes(8 * MIB))
        store = Store(disk / "root", size, kubelet=KubeletDisk(DEFAULT_THRESHOLDS, BOTH))
        store.open()
        found = store.disk()
        store.close()
        assert found.kubelet is not None
        # Of 16 MiB, 17 % stay available, whatever size the root is treated as.
        assert found.kubelet.kept == pytest.approx(16 * MIB * 0.17, abs=2)
        left = found.kubelet.mark - found.used
        assert 5.2 * MIB < left < 5.3 * MIB
        assert found.available == (4 * MIB if size else left + found.kubelet.kept)

    in_mounts_of_its_own(work)


def test_a_store_whose_disk_is_not_the_kubelets_has_no_such_bound(tmp_path: Path) -> None:
    for kubelet in (
        None,
        KubeletDisk(DEFAULT_THRESHOLDS, frozenset()),
        KubeletDisk(parse_thresholds("off"), BOTH),
    ):
        store = Store(tmp_path / "root", kubelet=kubelet)
        store.open()
        assert store.disk().kubelet is None
        store.close()
