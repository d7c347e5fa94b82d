"""Makes the Nth call of an agent fail for N = 1, 2, 3, ... until a run has no Nth call."""

from __future__ import annotations

import gc
import itertools
import random
import select
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.faults import life, origin, scenario
from tests.faults.calls import Calls, Fault
from tests.faults.forks import Fork, fork
from tests.faults.report import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.faults.disk import Loss
    from tests.faults.scenario import Scenario

RUN_SECONDS = 40.0
# Seconds of the agent's clock that a run lasts after a permanent fault.
LASTING_HORIZON = 150.0
SHOW_EACH = 100


@dataclass(frozen=True)
class Kind:
    """A kind of fault, and the expected end of the run.

    `heals`: the same process reaches the final state, unless it cannot start. `dies`: the process
    is killed. `again`: the process is killed once more at a random call of its next run.
    """

    name: str
    fault: Fault
    heals: bool = False
    dies: bool = False
    again: bool = False

    @property
    def ends(self) -> set[str]:
        """The allowed ends of the run with the fault."""
        if self.dies:
            return {"died"}
        return {"done", "cannot start"} | (set() if self.heals else {"not done"})


@dataclass
class Lab:
    """The values that all runs share. With a `sample`, only that many calls of each kind fail."""

    scenario: Scenario
    work: Path
    seed: int
    sample: int | None = None
    # More than the cores: each job waits for a server or a child half of the time.
    jobs: int = 4


@contextmanager
def lab(work: Path, seed: int, sample: int | None) -> Iterator[Lab]:
    """Start the origin, and make the template of the disk."""
    bucket = {
        f"{name}/{path}": data
        for name, files in scenario.FOLDERS.items()
        for path, data in files.items()
    }
    with origin.serve(scenario.WEB, bucket) as url:
        found = scenario.make(url, work / "template")
        # Forks share the memory of objects that the garbage collector does not touch.
        gc.freeze()
        yield Lab(found, work, seed, sample)


def sweep(part: str, kinds: Sequence[Kind], where: Lab) -> list[Row]:
    """Make every call fail in each kind. Several processes share the numbers of the calls."""
    rows = {kind.name: Row(part, kind.name) for kind in kinds}
    chosen = _sample(where, kinds)
    workers = [_start(where, kinds, chosen, number) for number in range(where.jobs)]
    alive = {worker.pipe: worker for worker in workers}
    done = 0
    try:
        while alive:
            for pipe in select.select(list(alive), [], [])[0]:
                messages = alive[pipe].receive()
                if messages is None:
                    del alive[pipe]
                for result in messages or ():
                    rows[result["kind"]].take(result["problems"], result["lost"])
                    done += 1
                    if done % SHOW_EACH == 0:
                        _show(part, list(rows.values()))
        for worker in workers:
            worker.receive_all(RUN_SECONDS)
            if worker.status:
                raise RuntimeError(f"a process of {part} failed with {worker.status}: see above")
    finally:
        for worker in workers:
            worker.end()
    return list(rows.values())


def _show(part: str, rows: Sequence[Row]) -> None:
    injected = sum(row.injected for row in rows)
    bad = injected - sum(row.survived for row in rows)
    last = next((row.name for row in reversed(rows) if row.injected), "")
    sys.stderr.write(f"{part}: {injected} faults, {bad} not survived; now: {last}\n")


def _start(
    where: Lab, kinds: Sequence[Kind], chosen: Mapping[str, Sequence[int]], number: int
) -> Fork:
    def work(send: Callable[[object], None]) -> None:
        for kind in kinds:
            numbers: Iterable[int] = itertools.count(number + 1, where.jobs)
            if chosen:
                numbers = chosen[kind.name][number :: where.jobs]
            for fail_at in numbers:
                result = _Trial(where, kind, fail_at, where.work / f"run-{number}").run()
                if result is None:
                    break
                send(result)

    return fork(work)


def _sample(where: Lab, kinds: Sequence[Kind]) -> dict[str, list[int]]:
    """A sample of the calls that each kind can meet in a run without faults; empty: all calls."""
    if where.sample is None:
        return {}

    def work(send: Callable[[object], None]) -> None:
        calls = Calls(where.work / "run")
        where.scenario.lay_out(where.work / "run")
        life.run_agent(where.scenario, calls, send)
        send([sum(map(kind.fault.meets, calls.log)) for kind in kinds])

    counts = fork(work, where.work / "run.log").receive_all(RUN_SECONDS)[-1]
    chance = random.Random(where.seed)
    return {
        kind.name: sorted(chance.sample(range(1, count + 1), min(where.sample, count)))
        for kind, count in zip(kinds, counts, strict=True)
    }


class _Trial:
    """One fault, and the agent's run after it."""

    def __init__(self, where: Lab, kind: Kind, fail_at: int, root: Path) -> None:
        self._where, self._kind, self._fail_at, self._root = where, kind, fail_at, root
        self._disk = where.scenario.disk(root)
        # Problems, and the bytes that were lost.
        self._problems: dict[str, int] = {}
        self._log = root.with_suffix(".log")
        self._log.unlink(missing_ok=True)

    def run(self) -> dict[str, Any] | None:
        """Run the agent with the fault, and check the disk. None: there is no such call."""
        kind = self._kind
        self._where.scenario.lay_out(self._root)
        lasts = kind.fault.later is not None
        horizon = LASTING_HORIZON if lasts else life.HORIZON
        messages = self._live(Calls(self._root, kind.fault, self._fail_at), horizon)
        struck = next((message["struck"] for message in messages if "struck" in message), None)
        ended = messages[-1].get("ended", "died")
        if struck is None:
            if ended != "done":
                raise RuntimeError(f"an agent without a fault: {ended}; see {self._log}")
            return None
        if ended not in kind.ends:
            self._problems[f"the agent after it: {ended}"] = 0
        self._look("right after it")
        if kind.again:
            chance = random.Random(f"{self._where.seed} {kind.name} {self._fail_at}")
            self._live(Calls(self._root, kind.fault, chance.randint(1, 40)))
            self._look("after the second")
        if self._live(Calls(self._root))[-1].get("ended") != "done":
            self._problems["the agent after a restart: not done"] = 0
        lost, problems = self._where.scenario.not_at_end(self._root)
        self._take(lost, "in the end")
        self._problems |= dict.fromkeys(problems, 0)
        place = f"call {self._fail_at} ({struck})"
        if self._problems:
            self._keep()
        return {
            "kind": kind.name,
            "problems": [f"{place}: {problem}" for problem in self._problems],
            "lost": sum(self._problems.values()),
        }

    def _live(self, calls: Calls, horizon: float = life.HORIZON) -> list[Any]:
        """Run an agent in a child process. The last of its messages is how it ended."""
        child = fork(
            lambda send: life.run_agent(self._where.scenario, calls, send, horizon=horizon),
            self._log,
        )
        messages = child.receive_all(RUN_SECONDS)
        for message in messages:
            if "lost" in message:
                self._problems[f"in between: {message['what']}"] = message["lost"]
        return messages or [{}]

    def _look(self, when: str) -> None:
        self._take(self._disk.losses(), when)

    def _take(self, losses: Sequence[Loss], when: str) -> None:
        self._problems |= {f"{when}: {loss.what}": loss.size for loss in losses}

    def _keep(self) -> None:
        """Save the disk and the log of a failed run."""
        name = f"{self._kind.name}-{self._fail_at}".replace(" ", "-").replace("/", "-")
        kept = self._where.work / "failures" / name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self._root, kept, symlinks=True)
        shutil.copy(self._log, kept / "agent.log")
        (kept / "problems.txt").write_text("\n".join(self._problems) + "\n")
