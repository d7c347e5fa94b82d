"""`make bench-control`: how long a change of the plan takes, and what it costs."""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.local import build
from deploy.local.console import Console
from deploy.local.layout import BUILD, CHECKOUT
from tests.bench import machine
from tests.bench.command import make_work_folder, run_benchmark
from tests.bench.control import figures, floor, hook_cost
from tests.bench.control.document import updated
from tests.bench.control.figures import FLOOR, OURS, Rounds, Sample
from tests.bench.control.rollout import Rollout
from tests.bench.control.settings import Settings
from tests.bench.control.stage import stage
from tests.bench.control.targets import TARGETS
from tests.bench.control.worktree import commit, worktree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.bench.control.stage import Stage

DOCUMENT = CHECKOUT / "docs" / "scale.md"
WORK = BUILD / "bench-control"


def main() -> int:
    """Run the benchmark."""
    return run_benchmark(lambda: _run(_parser().parse_args()))


def _run(options: argparse.Namespace) -> None:
    make_work_folder(WORK, "the control plane")
    settings = Settings(
        nodes=options.nodes,
        models=options.models,
        rounds=options.rounds,
        timeout=options.timeout,
        quiet=options.quiet,
        progress=options.progress,
        connections=options.connections,
        work=WORK / "work",
    )
    with ExitStack() as cleanup:
        shutil.rmtree(settings.work, ignore_errors=True)
        settings.work.mkdir()
        cleanup.callback(shutil.rmtree, settings.work, ignore_errors=True)
        checkouts = {OURS: CHECKOUT}
        if options.against:
            name = f"{options.against} ({commit(options.against)[:7]})"
            checkouts[name] = cleanup.enter_context(worktree(options.against, WORK / "against"))
        console = Console(sys.stderr)
        build.ensure_kube(console)
        bench = _Bench(settings, checkouts, console)
        bench.run()
        text = bench.report()
    sys.stdout.write(text + "\n")
    if options.write:
        before = DOCUMENT.read_text() if DOCUMENT.exists() else ""
        DOCUMENT.write_text(updated(before, text, settings.nodes, settings.models))


@dataclass
class _Bench:
    """All rounds, each with all rows."""

    settings: Settings
    checkouts: Mapping[str, Path]
    console: Console

    def run(self) -> None:
        """Run everything. Raises BenchError or LocalError."""
        self.rounds: Rounds = [{} for _ in range(self.settings.rounds)]
        self.metacontroller = ""
        for name, checkout in self.checkouts.items():
            with self.console.step(f"single calls of the hooks: {name}"):
                self.rounds[0][name] = hook_cost.measure(checkout, self.settings)
        for number, results in enumerate(self.rounds, 1):
            turn = f"round {number} of {self.settings.rounds}"
            self._row(f"{turn}: {FLOOR}", results, FLOOR, CHECKOUT, self._floor)
            for name, checkout in self.checkouts.items():
                self._row(f"{turn}: {name}", results, name, checkout, self._rollout)

    def _row(
        self,
        title: str,
        results: dict[str, Sample],
        name: str,
        checkout: Path,
        measure: Callable[[Stage], Sample],
    ) -> None:
        with (
            self.console.step(title),
            stage(self.settings.work / "cluster", checkout) as there,
        ):
            self.metacontroller = there.metacontroller
            results.setdefault(name, {}).update(measure(there))

    def _floor(self, there: Stage) -> Sample:
        return floor.run(there, self.settings)

    def _rollout(self, there: Stage) -> Sample:
        return Rollout(there, self.settings).run()

    def report(self) -> str:
        """The table, and what it was measured on."""
        settings = self.settings
        other = next((name for name in self.checkouts if name != OURS), None)
        rounds = "1 round" if settings.rounds == 1 else f"medians of {settings.rounds} rounds"
        head = (
            f"{settings.nodes:,} nodes, {settings.models:,} models; {rounds}. "
            f"{machine.facts(settings.work)}; Metacontroller: {self.metacontroller}."
        )
        targets = TARGETS.get(settings.size, {})
        return f"{head}\n\n{figures.table(self.rounds, other, targets)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-control", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--against", default="", help="a revision whose hooks are measured too")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for each wait")
    parser.add_argument("--quiet", type=float, default=20.0, help="seconds of the look at the end")
    parser.add_argument(
        "--progress",
        type=int,
        default=0,
        help="how often agents report a download that goes on, 15 s apart, before they have all",
    )
    parser.add_argument("--connections", type=int, default=16, help="of the reporter")
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
