"""`make faults`: injects faults of disks, processes and clusters, and counts lost bytes."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.errors import LocalError
from deploy.local.layout import BUILD, CHECKOUT
from deploy.local.posix import try_lock
from deploy.local.signals import exit_on_signals
from tests.bench.table import between_markers
from tests.faults import cluster, crashes, io_errors, overcommit, peers, small_disk, tenants
from tests.faults.report import Row, failures, table
from tests.faults.sweep import lab

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCUMENT = CHECKOUT / "docs" / "faults.md"
MARKERS = "faults"
SECONDS = 600.0
# The disk faults are quick, so most of the time is for the cluster.
SHARES = {
    small_disk.PART: 0.2,
    peers.PART: 0.2,
    overcommit.PART: 0.5,
    tenants.PART: 0.5,
    cluster.PART: 1.0,
}
WORK = BUILD / "faults"
MEMORY = Path("/dev/shm")
SWEEPS = {io_errors.PART: io_errors.run, crashes.PART: crashes.run}
TIMED = {
    small_disk.PART: small_disk.run,
    peers.PART: peers.run,
    overcommit.PART: overcommit.run,
    tenants.PART: tenants.run,
    cluster.PART: cluster.run,
}
PARTS = (*SWEEPS, *TIMED)


def main() -> int:
    """Inject the faults. Returns 1 if a fault was not survived, or bytes were lost."""
    exit_on_signals()
    options = _parser().parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    parts = _named(options.parts) or list(PARTS)
    again = f"make faults SEED={seed} PARTS={','.join(parts)} DURATION={options.duration:g}"
    if options.attacks:
        again += f" ATTACKS={options.attacks}"
    sys.stderr.write(f"seed {seed}\n")
    began = time.monotonic()
    try:
        _check(options, parts)
        rows = _run(parts, seed, options)
    except (LocalError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"error: {error}\nto repeat it: {again}\n")
        return 1
    text = table(rows)
    minutes = (time.monotonic() - began) / 60
    took = f"{minutes:.0f} minutes, DURATION={options.duration:g} SEED={seed}."
    sys.stdout.write(f"{text}\n\n{took}\n")
    if options.write:
        document = DOCUMENT.read_text()
        DOCUMENT.write_text(between_markers(document, f"{text}\n\n{took}", MARKERS))
    if all(row.is_good for row in rows):
        return 0
    sys.stderr.write(f"{failures(rows)}\nto repeat it: {again}\n")
    return 1


def _check(options: argparse.Namespace, parts: Sequence[str]) -> None:
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"there is no part {', '.join(unknown)}: take some of {', '.join(PARTS)}")
    tenants.check(_named(options.attacks))
    if options.write and (options.sample or options.attacks or set(parts) != set(PARTS)):
        raise ValueError("only a run of all parts, without --sample, is written to the docs")


def _run(parts: Sequence[str], seed: int, options: argparse.Namespace) -> list[Row]:
    WORK.mkdir(parents=True, exist_ok=True)
    memory = MEMORY if MEMORY.is_dir() else WORK
    places = {part: WORK / part for part in TIMED}
    places |= dict.fromkeys(SWEEPS, memory / f"localmodel-faults-{options.sample or 'all'}")
    lock = try_lock(WORK / f"lock-{options.sample or 'all'}")
    if lock is None:
        raise ValueError("another run of the faults is under way: wait for it, or end it")
    rows: list[Row] = []
    for part in parts:
        place = places[part]
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            found = _run_part(part, place, seed, options)
        except (KeyboardInterrupt, SystemExit):
            shutil.rmtree(place, ignore_errors=True)
            raise
        rows += found
        if all(row.is_good for row in found):
            shutil.rmtree(place)
        else:
            sys.stderr.write(f"{part}: what it left is in {place}\n")
    return rows


def _run_part(part: str, place: Path, seed: int, options: argparse.Namespace) -> list[Row]:
    if part in SWEEPS:
        with lab(place, seed, options.sample) as where:
            return SWEEPS[part](where)
    seconds = SHARES[part] * options.duration
    if part == tenants.PART:
        return tenants.run(place, seed, seconds, _named(options.attacks))
    return TIMED[part](place, seed, seconds)


def _named(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="seed of all random choices; default: a new one")
    parser.add_argument("--duration", type=float, default=SECONDS, help="seconds of random parts")
    parser.add_argument("--parts", default="", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--attacks", default="", help="attacks of the part tenants; default: all")
    parser.add_argument(
        "--sample", type=int, help="how many calls of each kind to fail; default: all"
    )
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
