"""The rounds: all tools download all rows in random order; the first downloads are verified."""

from __future__ import annotations

import compileall
import os
import random
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from deploy.local.layout import CHECKOUT
from tests.bench import memory, probe, running, steps, tools
from tests.bench.origin import PREFIX, SUMS, WARM, Tree
from tests.bench.rows import DISK, NOTHING, OURS, STEPS
from tests.bench.running import BenchError, FailedError
from tests.bench.table import Rounds, Sample
from tests.bench.trash import Trash

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from tests.bench.origin import Origin
    from tests.bench.rows import Entry, Row

SMALL_BYTES = 100 << 10
SMALL_COUNT = 10_000
SHARDS = 8
FULL_BYTES = 1 << 30
TINY_BYTES = 1 << 20
# A latency is measured for 3 s at 200 requests per second, or beside 5 downloads.
PROBED_REQUESTS = 600
PROBED_DOWNLOADS = 5
# A run of more than a minute is not repeated: it would take most of the benchmark's time.
LONG_SECONDS = 60.0
_COMPARE_BYTES = 4 << 20


@dataclass
class Settings:
    """The rows and rounds to run. `missing` are the tools that are not installed, and why."""

    rows: tuple[Row, ...]
    rounds: int
    size: int
    seed: int
    timeout: float
    missing: dict[str, str]
    work: Path
    _known: dict[str, Tree] = field(init=False)

    def __post_init__(self) -> None:
        small = max(1, min(SMALL_COUNT, SMALL_COUNT * self.size // FULL_BYTES))
        trees = (
            Tree("one", 1, self.size),
            Tree("folder", SHARDS, self.size // SHARDS),
            # Streams that are held need more bytes to show how many connections there are.
            Tree("large", 1, 2 * self.size),
            Tree("small", small, SMALL_BYTES),
            Tree("tiny", 1, TINY_BYTES),
        )
        self._known = {tree.name: tree for tree in trees}

    def tree(self, row: Row) -> Tree:
        """The files of a row."""
        return self._known[row.tree]

    @property
    def trees(self) -> list[Tree]:
        """The trees of all rows."""
        names = {row.tree for row in self.rows}
        return [tree for name, tree in self._known.items() if name in names]

    @property
    def sums(self) -> set[str]:
        """The trees that a row also downloads with checksums."""
        return {row.tree for row in self.rows for entry in row.entries if entry.sums}


class Bench:
    """All runs, and the process of the agent."""

    def __init__(self, settings: Settings, origin: Origin) -> None:
        self.settings = settings
        self.results: dict[str, Rounds] = {row.name: [] for row in settings.rows}
        # The reasons of missing lines.
        self.failed: dict[tuple[str, str], str] = {}
        self._origin = origin
        self._folder = settings.work / "out"
        self._scratch = settings.work / "scratch"
        self._scratch.mkdir()
        self._trash = Trash(settings.work / "trash")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        root = self.settings.work / "agent"
        argv = [sys.executable, "-m", "tests.bench.agent_process", str(root)]
        env = {"PYTHONPATH": str(CHECKOUT)}
        self._agent = self._stack.enter_context(running.worker(argv, env, self._scratch))
        self._probe = self._stack.enter_context(probe.probe(self._scratch))
        # As in an installed package.
        for package in ("agent", "crds"):
            compileall.compile_dir(CHECKOUT / package, quiet=1)
        for slow in (False, True):
            # A first download imports all modules and makes all clients before the timed runs.
            endpoint = self._origin.endpoint(slow=slow)
            uris = [f"{endpoint}/{WARM}/{PREFIX}/model.bin", f"s3://{WARM}/{PREFIX}"]
            self._ask(uris, endpoint, ())
            self._remove()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(self) -> None:
        """Run all rounds. Raises BenchError."""
        order = random.Random(self.settings.seed)
        for number in range(self.settings.rounds):
            for row in self.settings.rows:
                results: dict[str, Sample] = {}
                self.results[row.name].append(results)
                for entry in order.sample(row.entries, len(row.entries)):
                    if entry.tool in self.settings.missing:
                        self.failed[row.name, entry.name] = self.settings.missing[entry.tool]
                    if (row.name, entry.name) not in self.failed and not self._is_long(row, entry):
                        results |= self._turn(row, entry, compared=number == 0)
                        self._show(number, row, entry, results)

    def _is_long(self, row: Row, entry: Entry) -> bool:
        """Whether a run took so long that it is not repeated."""
        first = self.results[row.name][0].get(entry.name)
        return first is not None and first.seconds > LONG_SECONDS

    def _show(self, number: int, row: Row, entry: Entry, results: dict[str, Sample]) -> None:
        done = f"{number + 1}/{self.settings.rounds} {row.name:16} {entry.name:40}"
        if entry.name not in results:
            sys.stderr.write(f"{done} {self.failed[row.name, entry.name]}\n")
            return
        after = "".join(
            f"{line.name.removeprefix(entry.name)} {results[line.name].seconds:.2f}"
            for line in entry.lines[1:]
        )
        sample = results[entry.name]
        used = f"{sample.cpu_seconds:7.2f} s of CPU {sample.peak_bytes / 1e6:5.0f} MB"
        sys.stderr.write(f"{done} {sample.seconds:7.2f} s {used}{after}\n")

    def _turn(self, row: Row, entry: Entry, *, compared: bool) -> dict[str, Sample]:
        """One download, or as many as give enough samples of a latency."""
        results = self._once(row, entry, compared=compared)
        if row.probed:
            for _ in range(PROBED_DOWNLOADS - 1):
                if not results or len(results[entry.name].latencies) >= PROBED_REQUESTS:
                    break
                again = self._once(row, entry, compared=False)
                results = {name: results[name] + sample for name, sample in again.items()}
        return results

    def _once(self, row: Row, entry: Entry, *, compared: bool) -> dict[str, Sample]:
        tree = self.settings.tree(row)
        self._folder.mkdir()
        os.sync()
        loops = running.busy_loops(_cores() if row.busy else 0, self._scratch)
        try:
            with loops:
                memory.warm(tree.bytes + (1 << 30))
                results, folders = self._measured(row, entry, tree)
        except FailedError as error:
            if entry.tool == OURS:
                raise BenchError(f"{entry.name} failed in {row.name}: {error}") from None
            self.failed[row.name, entry.name] = f"failed: {str(error).splitlines()[-1][:120]}"
            self._clear([self._folder])
            return {}
        if compared and entry.tool not in {DISK, NOTHING}:
            self._compare(row, entry, tree, folders)
        self._clear([self._folder, *folders] if entry.tool == OURS else [self._folder])
        if entry.tool == OURS:
            self._remove()
        return results

    def _clear(self, folders: list[Path]) -> None:
        for folder in folders:
            self._trash.take(folder)
        shutil.rmtree(self._folder)

    def _measured(self, row: Row, entry: Entry, tree: Tree) -> tuple[dict[str, Sample], list[Path]]:
        """A download and the steps after it, each measured alone. Returns the tool's folders too.

        Raises FailedError.
        """
        folders = [self._folder, self._folder / "model"]

        def download() -> Sample:
            if entry.tool == OURS:
                sample, folders[:] = self._ours(row, tree, entry)
                return sample
            task = tools.Task(
                row, tree, self._origin, self._folder, self._scratch, self.settings.timeout
            )
            return tools.download(task, entry)

        results = {entry.name: self._probed(row, download)}
        wanted = {step for after in entry.then for step in STEPS[after]}
        done: dict[str, Sample] = {}
        for name, step in (("fsync", steps.sync), ("sha256", steps.digest)):
            if name in wanted:
                paths = [_find(folders, file) for file in tree.files]
                done[name] = self._probed(row, partial(step, paths))
        for after in entry.then:
            parts = (done[step] for step in STEPS[after])
            results[entry.name + after] = sum(parts, start=results[entry.name])
        return results, folders

    def _probed(self, row: Row, step: Callable[[], Sample]) -> Sample:
        """Run a step, in a probed row with the latency beside it."""
        if not row.probed:
            return step()
        self._probe.begin()
        try:
            sample = step()
        finally:
            latencies = self._probe.end()
        return replace(sample, latencies=latencies)

    def _ours(self, row: Row, tree: Tree, entry: Entry) -> tuple[Sample, list[Path]]:
        bucket = tree.name + (SUMS if entry.sums else "")
        uris = [f"s3://{bucket}/{PREFIX}"]
        if (entry.scheme or row.scheme) == "http":
            uris = [self._origin.url(tree, name, slow=row.slow) for name in tree.files]
        answer = self._ask(uris, self._origin.endpoint(slow=row.slow), entry.without)
        sample = Sample(answer["seconds"], answer["peak"], answer["cpu"])
        return sample, [Path(folder) for folder in answer["folders"]]

    def _ask(self, uris: list[str], endpoint: str, without: tuple[str, ...]) -> Any:
        settings = {**tools.KEYS, "AWS_ENDPOINT_URL": endpoint}
        job = {"uris": uris, "settings": settings, "without": without}
        return self._agent.ask(job, self.settings.timeout)

    def _remove(self) -> None:
        self._agent.ask({"remove": True}, self.settings.timeout)

    def _compare(self, row: Row, entry: Entry, tree: Tree, folders: list[Path]) -> None:
        for name in tree.files:
            if not _equal(_find(folders, name), self._origin.path(tree, name)):
                raise BenchError(f"{entry.name} brought other bytes in {row.name}: {name}")


def _find(folders: list[Path], name: str) -> Path:
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise BenchError(f"{name} is in none of {', '.join(map(str, folders))}")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _equal(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            piece = first.read(_COMPARE_BYTES)
            if piece != second.read(_COMPARE_BYTES):
                return False
            if not piece:
                return True
