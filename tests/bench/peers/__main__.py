"""`make bench-peers`: how fast agents get a model that they fetch from each other."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from crds.quantity import format_quantity, parse_quantity
from deploy.local.console import Console
from deploy.local.layout import BUILD
from tests.bench import machine
from tests.bench.command import make_work_folder, publish, run_benchmark
from tests.bench.peers.figures import WITHOUT_PEERS, Round, Row, serving_table, table
from tests.bench.peers.origin import Hub
from tests.bench.peers.scenarios import AGENTS, SCENARIOS, Bench
from tests.bench.peers.serving import serving_cost

WORK = BUILD / "bench-peers"
FILES = 4
SIZE = "256Mi"


def main() -> int:
    """Run the benchmark."""
    return run_benchmark(lambda: _run(_parser().parse_args()))


def _run(options: argparse.Namespace) -> None:
    work: Path = options.folder
    make_work_folder(work, "peers")
    console = Console(sys.stderr)
    size = parse_quantity(options.size)
    bench = Bench(work / "run", Hub.of(FILES, size), options.timeout)
    rounds: list[Round] = []
    costs: list[dict[str, float]] = []
    loads: list[float] = []
    for number in range(1, options.rounds + 1):
        with console.step(f"round {number} of {options.rounds}"):
            loads.append(os.getloadavg()[0])
            rounds.append(_round(bench, options, console))
            with console.step("serving"):
                costs.append(
                    {"plain": serving_cost(work / "serving", tls=False)}
                    | {"TLS": serving_cost(work / "serving", tls=True)}
                )
    head = (
        f"{AGENTS} agents, {FILES} files of {format_quantity(size)}, {options.rounds} rounds. "
        f"{machine.facts(work)}; load average {min(loads):.0f} to {max(loads):.0f} at the starts "
        "of the rounds."
    )
    text = f"{head}\n\n{table(rounds)}\n\n{serving_table(costs)}"
    publish(text, "peers", write=options.write)


def _round(bench: Bench, options: argparse.Namespace, console: Console) -> Round:
    found: Round = {}
    for scenario in SCENARIOS:
        if options.rows and scenario.name not in options.rows.split(","):
            continue
        with console.step(scenario.name):
            # With the same origin, and the same load of the machine.
            alone, all_alone = bench.direct(replace(scenario, kills=False)), None
            if scenario.has_all_alone:
                all_alone = bench.direct(scenario, AGENTS)
                found[f"{scenario.name}, {WITHOUT_PEERS}"] = Row(all_alone, alone)
            if not options.direct:
                found[scenario.name] = Row(bench.exchange(scenario), alone, all_alone)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default=SIZE, help=f"of each of the {FILES} files")
    parser.add_argument("--rows", default="", help=", ".join(one.name for one in SCENARIOS))
    parser.add_argument("--direct", action="store_true", help="only the rows without peers")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one run")
    parser.add_argument("--folder", type=Path, default=WORK, help="where the agents' disks are")
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
