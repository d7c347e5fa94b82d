"""Part c: a real agent on a small disk that becomes full, read-only or absent, and recovers.

The agent is `localmodel-agent run --models`, which must recover by itself.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.local.errors import LocalError
from deploy.local.layout import CHECKOUT
from deploy.local.product import PYTHON
from deploy.local.waiting import wait_until
from tests.faults import mounts, origin
from tests.faults.disk import Disk, Model, Tree, size_of, write_tree
from tests.faults.forks import fork
from tests.faults.report import Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PART = "small_disk"
DISK_BYTES = 40 << 20
RATE = "5Mi"
START_SECONDS = 60.0
# The longest backoff after a few failures, and the download.
READY_SECONDS = 200.0
LOOK_SECONDS = 0.05
FOREIGN: dict[str, Tree] = {"theirs": {"notes.txt": b"not ours"}}


@dataclass(frozen=True)
class Fault:
    """A temporary fault of a disk."""

    name: str
    begin: Callable[[_Bench], None]
    end: Callable[[_Bench], None]


class _Bench:
    """One disk with its agent. `root` is the path at which the agent uses the disk."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.folder, self.disk, self.root = folder, folder / "disk", folder / "root"
        self.chance = random.Random(seed)
        self.models: list[Model] = []
        self.problems: list[str] = []
        self.lost = 0
        # Whether the first model has been published.
        self.is_ready = False
        self._ever: list[Model] = []
        self._models_file = folder / "models.yaml"
        self._stopped = threading.Event()
        mounts.memory_disk(self.disk, DISK_BYTES)
        self.root.mkdir()
        mounts.bind(self.disk, self.root)
        for name, files in FOREIGN.items():
            write_tree(self.root / "models" / name, files)
        self.add("kept", origin.content(seed, 300_000), 3)

    def start(self) -> None:
        """Start the agent, which ends with the calling thread."""
        argv = [
            *("setpriv", "--pdeathsig", "KILL", PYTHON, "-m", "agent.main", "run"),
            *("--models", str(self._models_file), "--root", str(self.root)),
            *("--grace-seconds", "2", "--bytes-per-second", RATE, "--log-format", "json"),
        ]
        with (self.folder / "agent.log").open("wb") as log:
            self.agent = subprocess.Popen(argv, cwd=CHECKOUT, stderr=log, stdin=subprocess.DEVNULL)

    def add(self, name: str, content: bytes, count: int) -> Model:
        """Add a model with files of this content to the models file."""
        files = {f"part-{n}/weights.bin": bytes([n]) + content for n in range(count)}
        source = self.folder / "source" / name
        write_tree(source, files)
        model = Model(name, f"file://{source}", files)
        self.models.append(model)
        self._ever.append(model)
        self._write_models()
        return model

    def forget(self, model: Model) -> None:
        """Remove a model from the models file."""
        self.models.remove(model)
        self._write_models()

    def _write_models(self) -> None:
        entries = [{"uri": model.uri, "name": model.name} for model in self.models]
        whole = self._models_file.with_suffix(".new")
        whole.write_text(json.dumps({"models": entries}))
        whole.replace(self._models_file)

    @property
    def _kept(self) -> set[str]:
        return {self.models[0].key} if self.is_ready else set()

    def here(self, model: Model) -> bool:
        """Whether a model is published, by its folder alone."""
        return (self.disk / "models" / model.key).exists()

    def staged(self, model: Model) -> int:
        """The bytes that a download has written."""
        folder = self.disk / ".localmodel" / model.key / "files"
        return sum(path.stat().st_blocks * 512 for path in folder.glob("*/*"))

    def watch(self, done: threading.Event) -> None:
        """Check the published models until done."""
        while not done.wait(LOOK_SECONDS):
            # By the disk's own mount, which stays.
            known = Disk(self.disk, list(self._ever), FOREIGN, kept=self._kept)
            for loss in known.losses():
                self.lose(f"meanwhile: {loss}", loss.size)

    def lose(self, what: str, size: int) -> None:
        """Record each loss once."""
        if what not in self.problems:
            self.problems.append(what)
            self.lost += size


def _fill(bench: _Bench) -> None:
    with (bench.disk / "somebody-elses").open("wb", buffering=0) as file:
        piece = bytes(1 << 16)
        try:
            while True:
                file.write(piece)
        except OSError:
            return


def _free(bench: _Bench) -> None:
    (bench.disk / "somebody-elses").unlink()


def _read_only(bench: _Bench) -> None:
    mounts.bind_read_only(bench.disk, bench.root)


def _away(bench: _Bench) -> None:
    mounts.take_off(bench.root)


def _back(bench: _Bench) -> None:
    strangers = [path.name for path in bench.root.iterdir()]
    if strangers:
        bench.problems.append(f"the agent wrote where the disk was not: {strangers}")
    mounts.bind(bench.disk, bench.root)


FAULTS = (
    Fault("the disk fills up, and is freed", _fill, _free),
    Fault("the disk is read-only for a while", _read_only, _away),
    Fault("the disk is away for a while", _away, _back),
)


def run(work: Path, seed: int, seconds: float) -> list[Row]:
    """Run rounds of all faults, each on a new disk, until the time is over."""
    rows = {fault.name: Row(PART, fault.name) for fault in FAULTS}
    child = fork(lambda send: _run(work, seed, seconds, send))
    try:
        while (messages := child.receive()) is not None:
            for message in messages:
                for name in [message["name"]] if "name" in message else rows:
                    rows[name].skipped = message.get("skipped", "")
                    if not rows[name].skipped:
                        rows[name].take(message["problems"], message["lost"])
                sys.stderr.write(f"{PART}: {message.get('name', message.get('skipped'))}\n")
        child.receive_all(1)
    finally:
        child.end()
    if child.status:
        raise RuntimeError(f"{PART} failed with {child.status}: see above")
    return list(rows.values())


def _run(work: Path, seed: int, seconds: float, send: Callable[[object], None]) -> None:
    try:
        mounts.own_namespace()
        benches = [_Bench(work / f"disk-{n}", f"{seed}-{n}") for n in range(len(FAULTS))]
    except mounts.MountsError as error:
        send({"skipped": str(error)})
        return
    for bench in benches:
        bench.start()
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(len(FAULTS)) as pool:
        for ended in [
            pool.submit(_rounds, fault, bench, deadline, send)
            for fault, bench in zip(FAULTS, benches, strict=True)
        ]:
            ended.result()
    for bench in benches:
        bench.agent.terminate()
        bench.agent.wait(10)


def _rounds(fault: Fault, bench: _Bench, deadline: float, send: Callable[[object], None]) -> None:
    done = threading.Event()
    watcher = threading.Thread(target=bench.watch, args=(done,), daemon=True)
    watcher.start()
    try:
        wait_until(lambda: bench.here(bench.models[0]), "the first model", seconds=START_SECONDS)
        bench.is_ready = True
        number = 0
        while number == 0 or time.monotonic() < deadline:
            number += 1
            _round(fault, bench, number)
            send({"name": fault.name, "problems": bench.problems, "lost": bench.lost})
            bench.problems, bench.lost = [], 0
    finally:
        done.set()
        watcher.join()


def _round(fault: Fault, bench: _Bench, number: int) -> None:
    """Inject a fault during a download, end the fault, and check that the agent recovers."""
    size = bench.chance.randrange(150_000, 400_000)
    model = bench.add(f"model-{number}", origin.content(f"{number}", size), 70)
    part = bench.chance.uniform(0.1, 0.7) * size_of(model.files)
    try:
        wait_until(lambda: bench.staged(model) > part, "the download", seconds=START_SECONDS)
        fault.begin(bench)
        time.sleep(bench.chance.uniform(1, 6))
        if bench.here(model):
            bench.problems.append("the model was published although it could not be")
        fault.end(bench)
        wait_until(lambda: bench.here(model), "the model to be there", seconds=READY_SECONDS)
    except LocalError as error:
        bench.problems.append(str(error))
    time.sleep(1)
    lost, problems = Disk(bench.disk, bench.models, FOREIGN).not_at_end(bench.models)
    bench.problems += problems
    for loss in lost:
        bench.lose(str(loss), loss.size)
    if bench.agent.poll() is not None:
        bench.problems.append(f"the agent ended with {bench.agent.returncode}")
    bench.forget(model)
    try:
        wait_until(lambda: not bench.here(model), "the model to go", seconds=READY_SECONDS)
    except LocalError as error:
        bench.problems.append(str(error))
