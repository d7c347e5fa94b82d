"""`make bench-download`: compares the agent's download speed with other tools on one machine."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from crds.quantity import parse_quantity
from deploy.local.layout import BUILD, CHECKOUT
from deploy.local.posix import try_lock
from deploy.local.signals import exit_on_signals
from tests.bench import install, memory, report
from tests.bench.bench import Bench, Settings
from tests.bench.origin import remove, serve
from tests.bench.rows import ROWS, chosen
from tests.bench.running import BenchError

DOCUMENT = CHECKOUT / "docs" / "benchmarks.md"
SIZE = "1Gi"
# The server's files are in memory, the downloads on the disk.
SERVED = Path("/dev/shm/localmodel-bench")
WORK = BUILD / "bench" / "work"
BALLAST_BYTES = 8 << 30


def main() -> int:
    """Run the benchmark."""
    exit_on_signals()
    options = _parser().parse_args()
    try:
        _run(options)
    except (BenchError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    rows = chosen(options.rows, options.peers)
    if options.write and (options.size != SIZE or len(rows) != len(ROWS) or options.peers):
        raise BenchError("only a run of full size, of all rows and peers, is written to the docs")
    BUILD.joinpath("bench").mkdir(parents=True, exist_ok=True)
    lock = try_lock(BUILD / "bench" / "lock")
    if lock is None:
        raise BenchError("another benchmark is running")
    settings = Settings(
        rows=rows,
        rounds=options.rounds,
        size=parse_quantity(options.size),
        seed=options.seed,
        timeout=options.timeout,
        missing=install.install(),
        work=WORK,
    )
    with ExitStack() as cleanup:
        for folder in (SERVED, WORK):
            remove(folder)
            cleanup.callback(remove, folder)
            folder.mkdir(parents=True)
        sys.stderr.write("making the files\n")
        origin = cleanup.enter_context(serve(SERVED, settings.trees, settings.sums))
        cleanup.enter_context(memory.ballast(BALLAST_BYTES))
        bench = cleanup.enter_context(Bench(settings, origin))
        bench.run()
        text = report.report(settings, bench.results, bench.failed, judged=options.size == SIZE)
    sys.stdout.write(text + "\n")
    if options.write:
        report.write(DOCUMENT, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-download", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default="", help=", ".join(row.name for row in ROWS))
    parser.add_argument("--peers", default="", help="curl, s5cmd, ...; default: all")
    parser.add_argument(
        "--size",
        default=SIZE,
        help="size of the one file, and of the folder; half that of the file with slow streams",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the random order in the rounds"
    )
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for one run")
    parser.add_argument("--write", action="store_true", help="write the tables to the docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
