from __future__ import annotations

import io
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from deploy.local import cli, posix
from deploy.local.cluster import Cluster
from deploy.local.console import Console, progress_line
from deploy.local.errors import LocalError
from deploy.local.running import run_logged
from deploy.local.signals import exit_on_signals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    for command in (Cluster(tmp_path).node_up, Cluster(tmp_path).node_down):
        with pytest.raises(LocalError, match="holds files that are not"):
            command("node-4")
    assert not Cluster(tmp_path).down()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_down_without_a_cluster_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "local"
    assert cli.main(["down", "--local", str(root)]) == 0
    assert "nothing was running" in capsys.readouterr().out
    assert not root.exists()


def test_errors_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["status"], ["prometheus"], ["node-up", "node-4"], ["node-down", "node-4"]):
        assert cli.main([*arguments, "--local", str(tmp_path / "local")]) == 1
        told = capsys.readouterr().err
        assert f"error: no cluster runs in {tmp_path / 'local'}" in told
        assert "what to do: make up" in told
    assert cli.main(["node-up", "Node_4", "--local", str(tmp_path / "local")]) == 1
    assert "cannot be the name of a node" in capsys.readouterr().err


def test_one_command_at_a_time(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    with (
        posix.locked(cluster.layout.lock, seconds=0, error=LocalError("")),
        pytest.raises(LocalError, match="another command"),
        posix.locked(cluster.layout.lock, seconds=0, error=LocalError("another command")),
    ):
        pass


def test_steps_are_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    console = Console(stream)
    with console.step("baking"):
        pass
    with pytest.raises(ValueError, match="burnt"), console.step("roasting"):
        raise ValueError("burnt")
    assert stream.getvalue() == "✓ baking  0.0 s\n✗ roasting  0.0 s\n"


def test_progress_fits_the_terminal() -> None:
    assert progress_line("*", "baking", 3.4, "half done", 80) == "* baking … 3 s  half done"
    assert len(progress_line("*", "baking", 3.4, "x" * 100, 40)) == 39


@pytest.mark.usefixtures("handlers")
def test_a_command_ends_with_its_caller(tmp_path: Path) -> None:
    exit_on_signals()
    child = tmp_path / "child"
    code = "import os, sys, time; os.fork(); print(os.getpid(), file=open(sys.argv[1], 'a')); "
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def interrupt() -> None:
        while not child.exists() or len(child.read_text().split()) < 2:
            time.sleep(0.01)
        signal.pthread_kill(main_thread, signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    argv = [sys.executable, "-c", f"{code} sys.stdout.flush(); time.sleep(60)", str(child)]
    with pytest.raises(SystemExit) as left:
        run_logged(argv, log=tmp_path / "log", cwd=tmp_path)
    thread.join()
    assert left.value.code == 128 + signal.SIGTERM
    assert all(posix.identity(int(pid)) is None for pid in child.read_text().split())
