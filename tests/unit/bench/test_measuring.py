"""What the comparison of downloads measures of real processes and files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import peer_process, running, steps
from tests.bench.origin import Tree
from tests.bench.probe import probe
from tests.bench.trash import Trash

BURN = "import time\nwhile time.process_time() < 0.3: pass"
# A shell that runs two commands waits for the first, instead of becoming it.
SHELL = f"{sys.executable} -c '{BURN}'; true"


def test_the_cpu_of_a_program_is_that_of_its_children_too(tmp_path: Path) -> None:
    sample = running.run(["sh", "-c", SHELL], {}, tmp_path, 25)
    assert sample.cpu_seconds >= 0.3
    assert sample.peak_bytes > 0


def test_a_failed_program_says_why(tmp_path: Path) -> None:
    with pytest.raises(running.FailedError, match="ended with 3: no such model"):
        running.run(["sh", "-c", "echo no such model; exit 3"], {}, tmp_path, 25)


def test_the_floor_of_the_disk_writes_the_same_files(tmp_path: Path) -> None:
    tree = Tree("folder", 3, (2 << 20) + 7)
    sample = steps.write(tmp_path, tree)
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == dict.fromkeys(
        tree.files, tree.size
    )
    assert sample.seconds > 0
    assert sample.cpu_seconds > 0
    steps.sync([tmp_path / name for name in tree.files])


def test_many_files_are_synced_at_once(tmp_path: Path) -> None:
    tree = Tree("small", 101, 10)
    assert steps.write(tmp_path, tree).seconds > 0
    assert len(list(tmp_path.iterdir())) == 101


def test_files_of_a_former_run_stay_without_their_bytes(tmp_path: Path) -> None:
    trash = Trash(tmp_path / "trash")
    inodes = set()
    for _ in range(2):
        model = tmp_path / "out" / "model"
        model.mkdir(parents=True, exist_ok=True)
        (model / "a").write_text("bytes")
        (model.parent / "b").write_text("bytes")
        inodes |= {path.stat().st_ino for path in (model / "a", model.parent / "b")}
        trash.take(tmp_path / "out")
        assert not list(model.parent.glob("**/[ab]"))
    kept = [path.stat() for path in (tmp_path / "trash").glob("*/*")]
    assert {file.st_ino for file in kept} == inodes
    assert [file.st_size for file in kept] == [0] * 4


def test_the_latency_is_measured_as_often_as_asked(tmp_path: Path) -> None:
    with probe(tmp_path) as measuring:
        for _ in range(2):
            latencies: tuple[float, ...] = ()
            while not latencies:
                measuring.begin()
                latencies = measuring.end()
            assert min(latencies) > 0


def test_busy_loops_end_with_their_context(tmp_path: Path) -> None:
    with running.busy_loops(2, tmp_path):
        assert len(_loops(tmp_path)) == 2
    assert _loops(tmp_path) == []


def _loops(folder: Path) -> list[str]:
    """The processes whose working directory is a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(process.name)
        except OSError:
            continue
    return found


def test_a_library_that_works_in_children_is_measured_with_them() -> None:
    began = peer_process.cpu_seconds()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert peer_process.cpu_seconds() - began >= 0.3
