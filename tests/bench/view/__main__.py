"""`make bench-view`: how fast the kubectl plugin shows a large cluster, on recorded objects."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from deploy.local.console import Console
from deploy.local.layout import BUILD
from tests.bench import machine
from tests.bench.command import make_work_folder, publish, run_benchmark
from tests.bench.running import BenchError
from tests.bench.view.figures import Round, table
from tests.bench.view.measuring import Measuring
from tests.bench.view.objects import recorded
from tests.browser import MISSING, is_installed
from tests.recorded_api import RecordedApi, serving
from tests.unit.agent.api_server import write_kubeconfig

WORK = BUILD / "bench-view"


def main() -> int:
    """Run the benchmark."""
    return run_benchmark(lambda: _run(_parser().parse_args()))


def _run(options: argparse.Namespace) -> None:
    if not is_installed():
        raise BenchError(f"the page {MISSING}")
    make_work_folder(WORK, "the plugin")
    console = Console(sys.stderr)
    folder = WORK / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with console.step(f"{options.nodes} nodes with {options.models} models"):
        api = RecordedApi(recorded(options.nodes, options.models))
    rounds: list[Round] = []
    loads: list[float] = []
    try:
        with serving(api) as server:
            kubeconfig = write_kubeconfig(folder / "kubeconfig", server.url)
            measuring = Measuring(folder, kubeconfig, api)
            measuring.prepare()
            for number in range(1, options.rounds + 1):
                with console.step(f"round {number} of {options.rounds}"):
                    loads.append(os.getloadavg()[0])
                    rounds.append(measuring.round())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sizes = measuring.sizes
    head = (
        f"{options.nodes} nodes with {options.models} models, {len(rounds)} rounds. "
        f"{machine.facts(WORK)}; load average {min(loads):.0f} to {max(loads):.0f} at the starts "
        "of the rounds."
    )
    tail = (
        f"The page has {sizes.elements:,} elements. Its first message has "
        f"{sizes.first // 1024:,} KiB, and the message of one changed cell {sizes.change} bytes."
    )
    publish(f"{head}\n\n{table(rounds)}\n\n{tail}", "view", write=options.write)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-view", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
