"""`make bench-pods`: what the policies of deploy/pods cost when a pod or a workload is created."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from random import Random

from deploy.local import build
from deploy.local.cluster import Cluster
from deploy.local.console import Console
from deploy.local.layout import BUILD
from tests.bench import machine
from tests.bench.command import make_work_folder, publish, run_benchmark
from tests.bench.pods.figures import Round, table
from tests.bench.pods.measuring import Measuring

WORK = BUILD / "bench-pods"


def main() -> int:
    """Run the benchmark."""
    return run_benchmark(lambda: _run(_parser().parse_args()))


def _run(options: argparse.Namespace) -> None:
    make_work_folder(WORK, "pods")
    console = Console(sys.stderr)
    build.ensure_kube(console)
    cluster = Cluster(WORK / "cluster")
    try:
        cluster.up(0, pod_policies=True, run_agents=False, owner_pid=os.getpid())
        measuring = Measuring(cluster, options.caches, options.groups, options.creates)
        with console.step(f"{options.caches} caches in {options.groups} groups"):
            measuring.prepare()
        rounds: list[Round] = []
        random = Random(options.seed)
        for number in range(1, options.rounds + 1):
            with console.step(f"round {number} of {options.rounds}"):
                rounds.append(measuring.round(random))
    finally:
        cluster.down()
        shutil.rmtree(WORK / "cluster", ignore_errors=True)
    head = (
        f"{options.caches} caches in {options.groups} groups; medians of {options.rounds} rounds "
        f"with {options.creates} creates of each. {machine.facts(WORK)}."
    )
    publish(f"{head}\n\n{table(rounds)}", "pods", write=options.write)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-pods", description=__doc__)
    parser.add_argument("--caches", type=int, default=200)
    parser.add_argument("--groups", type=int, default=4, help="that keep the caches")
    parser.add_argument("--creates", type=int, default=50, help="of each row in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of the order in each round")
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
