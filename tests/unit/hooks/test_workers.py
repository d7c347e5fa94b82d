"""The hooks under gunicorn, with the configuration of the image."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from crds.version import __version__
from deploy.local.ports import free_ports
from tests.fixtures import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TREE = Path(__file__).parent.parent.parent.parent
CALLS = 'localmodel_hook_calls_total{code="422",hook="/nodes/sync"} '


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class _Hooks:
    def __init__(self, process: subprocess.Popen[bytes], url: str, folder: Path, log: Path) -> None:
        self.process, self.url, self.folder, self.log = process, url, folder, log

    def serves(self) -> bool:
        try:
            return requests.get(f"{self.url}/readyz", timeout=10).ok
        except requests.ConnectionError:
            return False

    def workers(self) -> set[int]:
        pid = self.process.pid
        return {int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def has_others_than(self, pids: set[int]) -> bool:
        return len(self.workers() - pids) == 2 and self.serves()

    def call(self) -> None:
        answer = requests.post(f"{self.url}/nodes/sync", data=b"{}", timeout=10)
        assert answer.status_code == 422

    def counted(self) -> float:
        lines = requests.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        return sum(float(one.removeprefix(CALLS)) for one in lines if one.startswith(CALLS))

    def files(self) -> set[str]:
        return {file.name for file in self.folder.iterdir()}


@pytest.fixture
def hooks(tmp_path: Path) -> Iterator[_Hooks]:
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    with _started(metrics, tmp_path / "log", {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}) as made:
        yield made


@contextmanager
def _started(
    metrics: Path,
    log: Path,
    environment: dict[str, str],
    *,
    config: str = "python:hooks.gunicorn_conf",
    port: int = 0,
) -> Iterator[_Hooks]:
    """The hooks on a port of 127.0.0.1; with `port`, on the addresses of the configuration."""
    command = [sys.executable, "-m", "gunicorn", f"--config={config}"]
    if not port:
        (port,) = free_ports(1)
        command.append(f"--bind=127.0.0.1:{port}")
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [*command, "hooks.app:create_app()"],
            cwd=TREE,
            env=os.environ | environment,
            stderr=file,
            start_new_session=True,
        ) as process,
    ):
        made = _Hooks(process, f"http://127.0.0.1:{port}", metrics, log)
        try:
            _until(made.serves)
            yield made
        finally:
            # A worker that gunicorn has just forked misses a TERM, and gunicorn waits 10 s for it.
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.timeout(120)
def test_the_hooks_log_their_version(hooks: _Hooks) -> None:
    assert f"localmodel-hooks {__version__}\n" in hooks.log.read_text()


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.timeout(120)
def test_the_hooks_listen_on_addresses_of_both_families(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = tmp_path / "config.py"
    # The port of the installation may be another program's here.
    config.write_text(
        f"from hooks.gunicorn_conf import *\nbind = bind.replace(':8080', ':{port}')\n"
    )
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    with _started(metrics, tmp_path / "log", environment, config=str(config), port=port) as hooks:
        assert requests.get(f"http://[::1]:{port}/readyz", timeout=10).ok
        assert hooks.serves()


# It starts gunicorn.
@pytest.mark.timeout(120)
def test_a_deep_object_ends_no_call(tmp_path: Path) -> None:
    """The API server stores up to 10,000 levels, such as in a service's inline configuration."""
    case = load("caches/sync/services-get-claims")
    services = case.request["related"]["LLMInferenceService.serving.kserve.io/v1alpha2"]
    next(iter(services.values()))["spec"]["inline"] = "DEEP"
    deep = '{"x":' * 9_990 + "1" + "}" * 9_990
    body = json.dumps(case.request).replace('"DEEP"', deep)
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    settings = {**case.settings, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    with _started(metrics, tmp_path / "log", settings) as hooks:
        _until(lambda: len(hooks.workers()) == 2)
        before = hooks.workers()
        for _ in range(4):
            answer = requests.post(f"{hooks.url}/caches/sync", data=body, timeout=20)
            assert answer.status_code == 200, answer.text
        names = [one["name"] for one in answer.json()["status"]["llmInferenceServices"]]
        assert names == ["big"]
        assert hooks.workers() == before


# It starts gunicorn, and workers again.
@pytest.mark.timeout(120)
def test_a_worker_that_replaces_a_dead_one_goes_on_with_its_metric_files(hooks: _Hooks) -> None:
    made = 0
    for _ in range(2):
        for _ in range(10):
            hooks.call()
        made += 10
        assert hooks.counted() == made
        before = hooks.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        _until(partial(hooks.has_others_than, before))
    slots = ("master", "0", "1")
    allowed = {
        f"{kind}_{slot}.db" for kind in ("counter", "gauge_max", "histogram") for slot in slots
    }
    assert hooks.files() <= allowed


def _own_folder(hooks: _Hooks) -> Path:
    """The folder of the metric files that the hooks have made: they hold it open."""
    opened = Path(f"/proc/{hooks.process.pid}/fd").iterdir()
    (found,) = {file.readlink() for file in opened if "localmodel-metrics-" in str(file.readlink())}
    return found


# It starts gunicorn three times.
@pytest.mark.timeout(240)
def test_only_the_folders_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        running = stack.enter_context(_started(tmp_path, tmp_path / "running", {}))
        with _started(tmp_path, tmp_path / "killed", {}) as killed:
            killed.call()
            left = _own_folder(killed)
        assert list(left.iterdir())
        started = stack.enter_context(_started(tmp_path, tmp_path / "started", {}))
        assert not left.exists()
        folders = {_own_folder(running), _own_folder(started)}
        assert len(folders) == 2
        for one in (running, started):
            one.call()
            assert one.counted() == 1
    # The fixture kills these two, too.
    for folder in folders:
        shutil.rmtree(folder)
