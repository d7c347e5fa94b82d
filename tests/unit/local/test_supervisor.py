from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from deploy.local import posix
from deploy.local.errors import LocalError, PortTakenError
from deploy.local.layout import CHECKOUT, Layout
from deploy.local.process import Process
from deploy.local.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Each test starts and stops several processes.
pytestmark = pytest.mark.timeout(60)

# A program that ignores TERM, with a child that ignores TERM, as workers of gunicorn may.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpid()))
time.sleep(60)
"""


def eventually(check: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def sleeper(**options: object) -> Process:
    return Process(("sleep", "60"), cwd="/", **options)  # type: ignore[arg-type]


def python(code: str, *arguments: str, **options: object) -> Process:
    argv = (sys.executable, "-c", code, *arguments)
    return Process(argv, cwd="/", **options)  # type: ignore[arg-type]


def gone(pid: int) -> bool:
    return posix.identity(pid) is None


def make_folders(root: Path) -> Layout:
    layout = Layout(root)
    for folder in (layout.processes, layout.stopped, layout.logs):
        folder.mkdir(parents=True)
    return layout


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(make_folders(tmp_path))
    found.start_supervisor(os.getpid())
    yield found
    found.stop_supervisor()
    assert not found.running()


def supervisor_pid(processes: Processes) -> int:
    return int(processes.layout.supervisor_pid.read_text())


def file_pid(path: Path) -> int:
    eventually(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


def test_a_process_is_started_and_comes_back_after_kill(processes: Processes) -> None:
    processes.set("one", sleeper())
    first = processes.wait_for_pid("one", after=None, seconds=30)
    started = time.monotonic()
    assert processes.kill("one") == first
    second = processes.wait_for_pid("one", after=first, seconds=30)
    assert time.monotonic() - started < 2
    assert gone(first)
    assert not gone(second)
    ended = processes.ended("one")
    assert ended is not None
    assert (ended.how, ended.count) == ("killed by signal 9", 1)


def test_removed_stopped_and_changed_processes(processes: Processes) -> None:
    processes.set("one", sleeper())
    first = processes.wait_for_pid("one", after=None, seconds=30)
    processes.stop("one")
    assert gone(first)
    assert processes.pid("one") is None
    assert processes.names() == ["one"]
    processes.start("one")
    second = processes.wait_for_pid("one", after=first, seconds=30)
    processes.set("one", sleeper(env={"CHANGED": "yes"}))
    processes.wait_for_pid("one", after=second, seconds=30)
    assert gone(second)
    processes.remove("one")
    assert processes.pid("one") is None
    assert processes.names() == []
    # A requested stop does not count as a death.
    assert processes.ended("one") is None


def test_environment_folder_and_log(processes: Processes, tmp_path: Path) -> None:
    code = "import os; print(os.environ['WORD'], os.getcwd(), os.environ.get('KUBECONFIG'))"
    processes.set("one", Process((sys.executable, "-c", code), str(tmp_path), {"WORD": "hello"}))
    log = processes.layout.log("one")
    eventually(lambda: log.exists() and log.read_text().startswith(f"hello {tmp_path} None\n"))


def test_a_program_that_is_not_there_is_reported(processes: Processes) -> None:
    processes.set("one", Process(("/no/such/program",), "/"))
    with pytest.raises(LocalError, match="one died: did not start") as error:
        processes.wait("one", lambda: False, seconds=5, needs=["one"])
    assert "/no/such/program" in error.value.detail


def test_a_taken_port_is_told_from_other_deaths(processes: Processes) -> None:
    processes.set("one", python("raise SystemExit('bind: address already in use')"))
    with pytest.raises(PortTakenError):
        processes.wait("one", lambda: False, seconds=5, needs=["one"])


def test_a_file_that_is_no_process_disturbs_nothing(processes: Processes) -> None:
    (processes.layout.processes / "bad.json").write_text("{")
    processes.set("one", sleeper())
    processes.wait_for_pid("one", after=None, seconds=30)
    assert "bad.json" in processes.layout.log("supervisor").read_text()


def test_kill_takes_the_whole_group(processes: Processes, tmp_path: Path) -> None:
    processes.set("one", python(STUBBORN, str(tmp_path / "child"), stop_seconds=0.2))
    child = file_pid(tmp_path / "child")
    first = processes.kill("one")
    processes.wait_for_pid("one", after=first, seconds=30)
    assert gone(child)


def test_term_stops_all_in_reverse_order(tmp_path: Path) -> None:
    processes = Processes(make_folders(tmp_path))
    processes.start_supervisor(os.getpid())
    code = """
import os, signal, sys, time
def leave(*_):
    with open(sys.argv[2], "a") as file:
        file.write(sys.argv[1])
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
open(sys.argv[3], "w").close()
time.sleep(60)
"""
    for order, name in enumerate("abc"):
        arguments = (name, str(tmp_path / "told"), str(tmp_path / f"ready-{name}"))
        processes.set(name, python(code, *arguments, order=order))
    processes.set("stubborn", python(STUBBORN, str(tmp_path / "child"), order=1, stop_seconds=0.2))
    child = file_pid(tmp_path / "child")
    eventually(lambda: all((tmp_path / f"ready-{name}").exists() for name in "abc"))
    pids = [pid for name in ("a", "b", "c", "stubborn") if (pid := processes.pid(name))]
    assert processes.stop_supervisor()
    assert (tmp_path / "told").read_text() == "cba"
    assert len(pids) == 4
    assert all(gone(pid) for pid in [*pids, child])
    assert not list(processes.layout.run.glob("*.pid"))
    assert not processes.stop_supervisor()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part of it is Linux's")
def test_all_go_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    processes = Processes(make_folders(tmp_path))
    processes.start_supervisor(os.getpid())
    processes.set("plain", sleeper())
    processes.set("stubborn", python(STUBBORN, str(tmp_path / "child"), stop_seconds=0.2))
    pids = [file_pid(tmp_path / "child")]
    pids += [processes.wait_for_pid(name, after=None, seconds=30) for name in ("plain", "stubborn")]
    os.kill(supervisor_pid(processes), signal.SIGKILL)
    eventually(lambda: all(gone(pid) for pid in pids))
    processes.stop_supervisor()
    assert not processes.running()


def test_all_go_when_the_guard_is_killed_too(tmp_path: Path) -> None:
    processes = Processes(make_folders(tmp_path))
    processes.start_supervisor(os.getpid())
    processes.set("stubborn", python(STUBBORN, str(tmp_path / "child"), stop_seconds=0.2))
    child = file_pid(tmp_path / "child")
    os.kill(file_pid(processes.layout.guard_lock), signal.SIGKILL)
    eventually(lambda: not posix.is_locked(processes.layout.guard_lock))
    eventually(lambda: posix.is_locked(processes.layout.guard_lock))
    os.kill(supervisor_pid(processes), signal.SIGKILL)
    eventually(lambda: gone(child))
    processes.stop_supervisor()


def start_owned(tmp_path: Path) -> tuple[Processes, subprocess.Popen[bytes], int]:
    processes = Processes(make_folders(tmp_path))
    owner = subprocess.Popen(["sleep", "60"])
    processes.start_supervisor(owner.pid)
    processes.set("one", sleeper())
    return processes, owner, processes.wait_for_pid("one", after=None, seconds=30)


def test_all_go_with_the_owner_even_while_it_is_a_zombie(tmp_path: Path) -> None:
    processes, owner, pid = start_owned(tmp_path)
    owner.kill()
    eventually(lambda: not processes.running())
    assert gone(pid)
    owner.wait()


def test_a_cluster_that_is_kept_outlives_its_owner(tmp_path: Path) -> None:
    processes, owner, pid = start_owned(tmp_path)
    processes.layout.keep.touch()
    owner.kill()
    owner.wait()
    time.sleep(0.3)
    assert not gone(pid)
    assert processes.stop_supervisor()
    assert gone(pid)


def test_all_go_with_their_folder(tmp_path: Path) -> None:
    processes = Processes(make_folders(tmp_path / "local"))
    processes.start_supervisor(os.getpid())
    processes.set("one", sleeper())
    pid = processes.wait_for_pid("one", after=None, seconds=30)
    # Several times: the supervisor may write a file while rm empties its folder.
    remove = ["rm", "-rf", str(tmp_path / "local")]
    eventually(lambda: subprocess.run(remove, check=False).returncode == 0)
    eventually(lambda: gone(pid))


def test_one_supervisor_for_each_folder(processes: Processes) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "deploy.local.supervisor", str(processes.layout.root)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert "a supervisor is running" in second.stderr


def test_the_declaration_is_a_json_file(processes: Processes) -> None:
    processes.set("one", sleeper())
    raw = json.loads((processes.layout.processes / "one.json").read_text())
    assert raw["argv"] == ["sleep", "60"]
    with pytest.raises(LocalError, match="cannot be the name"):
        processes.set("../one", sleeper())
