"""Runs the plugin against a small API server with recorded objects, and a browser."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.kube.kinds import LOCAL_MODEL_NODES
from deploy.local.layout import CHECKOUT
from tests.bench.running import BenchError, run
from tests.bench.view.figures import AGAIN, CHANGE, FIRST, JSON, START, STATUS, Round, Sample
from tests.browser import browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

    from tests.recorded_api import RecordedApi

_SECONDS = 60.0
_PLUGIN = ("-m", "deploy.kubectl.main")
_DRAWN = "return performance.getEntriesByName('matrix-drawn')[0]?.startTime"


_COUNT = "return document.querySelectorAll('*').length"
# The bytes of the messages of a second stream.
_LISTEN = (
    "window.got = []; new EventSource('events').addEventListener('message',"
    " event => got.push(event.data.length))"
)
# Ends when the first cell has another state, after the frame that shows it.
_SEEN = """
const done = arguments[arguments.length - 1];
const cell = document.querySelector('#body .s');
const before = cell.ariaLabel;
new MutationObserver((_, observer) => {
  if (cell.ariaLabel === before) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => done(Date.now())));
}).observe(cell, {attributes: true});
"""


@dataclass(frozen=True)
class Sizes:
    """Elements of the page; bytes of its first message, and of that of one changed cell."""

    elements: int
    first: int
    change: int


class Measuring:
    """Measures with the objects of an API server. sizes: of the last round."""

    def __init__(self, work: Path, kubeconfig: Path, api: RecordedApi) -> None:
        self._work = work
        self._kubeconfig = kubeconfig
        self._api = api
        self.sizes = Sizes(0, 0, 0)

    def prepare(self) -> None:
        """Let the API server make its answers, which it keeps."""
        self._process("status")

    def round(self) -> Round:
        """Measure each row once."""
        found: Round = {
            STATUS.name: self._process("status"),
            JSON.name: self._process("status", "-o", "json"),
        }
        with self._ui() as (url, start), browser() as driver:
            found[START.name] = start
            driver.set_script_timeout(_SECONDS)
            driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
            driver.get(url)
            found[FIRST.name] = self._drawn(driver)
            driver.refresh()
            found[AGAIN.name] = self._drawn(driver)
            driver.execute_script(_LISTEN)
            self._until(driver, "return got.length === 1")
            found[CHANGE.name] = self._change(driver)
            self._until(driver, "return got.length === 2")
            first, change = driver.execute_script("return got")
            self.sizes = Sizes(driver.execute_script(_COUNT), first, change)
        # The next round begins with the answers made, too.
        self.prepare()
        return found

    def _change(self, driver: Chrome) -> Sample:
        """Change the state of the first cell. Returns the seconds until it is drawn."""
        name = min(one["metadata"]["name"] for one in self._api.all(LOCAL_MODEL_NODES))
        node = self._api.get(LOCAL_MODEL_NODES, name)
        report = node["status"]["models"][0]
        state = "Failed" if report["state"] == "Evicted" else "Evicted"
        node["status"]["models"][0] = report | {"state": state, "cached": False}
        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(driver.execute_async_script, _SEEN)
            # The observer is there long before.
            time.sleep(1)
            began = time.time()
            self._api.put(LOCAL_MODEL_NODES, node)
            return Sample(float(seen.result()) / 1000 - began)

    def _process(self, *arguments: str) -> Sample:
        argv = [sys.executable, *_PLUGIN, "--kubeconfig", str(self._kubeconfig), *arguments]
        before = _children_cpu()
        seconds = run(argv, {"PYTHONPATH": str(CHECKOUT)}, self._work, _SECONDS).seconds
        return Sample(seconds, _children_cpu() - before)

    @contextmanager
    def _ui(self) -> Iterator[tuple[str, Sample]]:
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, *_PLUGIN, "--kubeconfig", self._kubeconfig, "ui", "--no-browser"],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().strip()
                if not url:
                    raise BenchError("kubectl localmodel ui printed no address")
                yield url, Sample(time.monotonic() - began, _cpu(process.pid))
            finally:
                process.terminate()

    def _drawn(self, driver: Chrome) -> Sample:
        """When the matrix was drawn, and how long its main thread worked in all."""
        seconds = float(self._until(driver, _DRAWN)) / 1000
        metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        worked = next(one["value"] for one in metrics if one["name"] == "TaskDuration")
        return Sample(seconds, float(worked))

    def _until(self, driver: Chrome, script: str) -> Any:
        end = time.monotonic() + _SECONDS
        while not (found := driver.execute_script(script)):
            if time.monotonic() > end:
                raise BenchError(f"the page did not do what was expected in {_SECONDS:.0f} s")
            time.sleep(0.05)
        return found


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu(pid: int) -> float:
    """Seconds of CPU of a process that runs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
