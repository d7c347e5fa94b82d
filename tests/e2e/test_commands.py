"""The commands that people type: they do what they say, and leave nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.demo import pods
from deploy.local.layout import KUBECTL
from deploy.local.waiting import wait_until

pytestmark = pytest.mark.xdist_group("standin")

LOCAL = (sys.executable, "-m", "deploy.local")


def _run(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LOCAL, *args], capture_output=True, text=True, check=False, env=os.environ | (env or {})
    )


def _running(folder: Path) -> list[str]:
    """Command lines of processes that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


def _start(*args: str, **env: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        ["env", "--default-signal=INT", *LOCAL, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | env,
    )
    # Before `env` has become the command, it may ignore Ctrl-C itself.
    name = Path(f"/proc/{process.pid}/comm")
    wait_until(lambda: name.read_text() != "env\n", "the command to start", seconds=10)
    return process


def _interrupt(process: subprocess.Popen[str], text: str = "") -> None:
    """Send Ctrl-C to a command, once it has printed a line with a text, and wait for its end."""
    assert process.stdout is not None
    with process.stdout as lines:
        seen: list[str] = []
        while text and not (seen and text in seen[-1]):
            seen.append(lines.readline())
            if not seen[-1]:
                pytest.fail(f"it ended with {process.wait()} after:\n{''.join(seen[-30:])}")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) != 0


def _nodes(folder: Path) -> str:
    return subprocess.run(
        [KUBECTL, f"--kubeconfig={folder}/kubeconfig", "get", "nodes", "-l", "pool=gpu", "-o=name"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_up_nodes_and_down(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    at = ("--local", str(folder))
    up = _run("up", *at, "--nodes", "2")
    assert up.returncode == 0, up.stderr
    try:
        assert f"export KUBECONFIG={folder}/kubeconfig" in up.stdout
        assert _nodes(folder) == "node/node-1\nnode/node-2\n"

        again = _run("up", *at)
        assert again.returncode == 1
        assert "is running" in again.stderr
        assert "make down" in again.stderr

        assert _run("node-up", *at, "node-4").returncode == 0
        assert _nodes(folder) == "node/node-1\nnode/node-2\nnode/node-4\n"
        assert _run("node-down", *at, "node-4").returncode == 0
        assert _nodes(folder) == "node/node-1\nnode/node-2\n"
        missing = _run("node-down", *at, "node-9")
        assert missing.returncode == 1
        assert "there is no node node-9" in missing.stderr
    finally:
        down = _run("down", *at)
    assert down.returncode == 0, down.stderr
    assert _running(folder) == []
    assert "nothing was running" in _run("down", *at).stdout


@pytest.mark.parametrize("moment", ["", "control plane", "CRDs, RBAC and controllers"])
def test_ctrl_c_during_up_leaves_nothing(tmp_path: Path, moment: str) -> None:
    """Interrupted as soon as there is a folder, and after the step that a line tells of."""
    folder = tmp_path / "local"
    up = _start("up", "--local", str(folder), "--nodes", "1")
    if not moment:
        # While Python starts, an interrupt may be lost in code that ignores exceptions.
        wait_until(folder.exists, "the folder of the cluster", seconds=30)
    _interrupt(up, moment)
    wait_until(lambda: not _running(folder), "everything to be gone", seconds=10)


@pytest.mark.parametrize("flags", [(), ("--simulated",)])
def test_the_demo_holds_and_leaves_nothing(tmp_path: Path, flags: tuple[str, ...]) -> None:
    missing = pods.missing(tmp_path)
    if flags and missing:
        pytest.skip("the demo without flags uses simulated nodes too")
    demo = _run("demo", *flags, env={"TMPDIR": str(tmp_path)})
    assert demo.returncode == 0, demo.stdout[-3000:] + demo.stderr
    assert "Every check held" in demo.stdout
    assert ("▶ Warm: " in demo.stdout) == (not flags and not missing)
    assert list(tmp_path.iterdir()) == []
    assert _running(tmp_path) == []


def test_ctrl_c_in_the_demo_leaves_nothing(tmp_path: Path) -> None:
    _interrupt(_start("demo", TMPDIR=str(tmp_path)), "Compare each node's files")
    wait_until(lambda: not _running(tmp_path), "everything to be gone", seconds=10)
    assert list(tmp_path.iterdir()) == []
