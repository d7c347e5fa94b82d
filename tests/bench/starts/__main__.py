"""`make bench-starts`: how fast pods start that mount models, on a real kubelet."""

from __future__ import annotations

import argparse
import shutil
import sys
from random import Random

from crds.quantity import format_quantity, parse_quantity
from deploy.local import build
from deploy.local.console import Console
from deploy.local.layout import BUILD
from tests.bench import machine
from tests.bench.command import make_work_folder, publish, run_benchmark
from tests.bench.starts.figures import Round, table
from tests.bench.starts.measuring import Measuring
from tests.e2e.real import real_world

WORK = BUILD / "bench-starts"


def main() -> int:
    """Run the benchmark."""
    return run_benchmark(lambda: _run(_parser().parse_args()))


def _run(options: argparse.Namespace) -> None:
    size = parse_quantity(options.size)
    make_work_folder(WORK, "starts")
    console = Console(sys.stderr)
    build.ensure_kube(console)
    rounds: list[Round] = []
    random = Random(options.seed)
    try:
        with real_world(WORK / "cluster") as world:
            measuring = Measuring(world, size)
            with console.step("the first pods"):
                measuring.prepare()
            for number in range(1, options.rounds + 1):
                with console.step(f"round {number} of {options.rounds}"):
                    rounds.append(measuring.round(number, random))
    finally:
        shutil.rmtree(WORK / "cluster", ignore_errors=True)
    counted = "1 round" if options.rounds == 1 else f"{options.rounds} rounds"
    head = f"{counted}, models of {format_quantity(size)}. {machine.facts(WORK)}."
    publish(f"{head}\n\n{table(rounds)}", "starts", write=options.write)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-starts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="16Mi", help="of each model")
    parser.add_argument("--seed", type=int, default=1, help="of the order in each round")
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
