"""`python -m tests.bench.peers.large_group`: simulates a large group, and counts its hints."""

from __future__ import annotations

import argparse
import sys

from tests.bench.peers.hints import endpoints, members, restarts
from tests.bench.peers.simulation import GBIT, Network, Simulation

GB = 10**9
TARGET_SECONDS, TARGET_COPIES = 160.0, 1.05


def main() -> int:
    """Print what the simulation says. Returns 1 if a target is missed."""
    options = _parser().parse_args()
    agents = endpoints(options.nodes)
    # A slower network with a smaller model takes the same time with fewer pieces.
    network = Network(node=10 * GBIT / options.scale, origin=20 * GBIT / options.scale)
    size = options.gigabytes * GB // options.files // options.scale
    found = Simulation(members(agents), [size] * options.files, network, options.seed).run()
    bound = size * options.files / network.node
    sys.stdout.write(
        f"{options.nodes} nodes, {options.gigabytes} GB in {options.files} files "
        f"({found.pieces:,} pieces): all complete after {found.last:.0f} s, the median after "
        f"{found.median:.0f} s, the first after {found.first:.0f} s; one link needs "
        f"{bound:.0f} s. Origin: {found.copies:.3f} copies, {found.hungry} pieces out of "
        f"impatience. {found.refused:,} requests found a busy peer.\n"
    )
    for count in (1, max(1, options.nodes // 10), options.nodes):
        writes = restarts(agents, range(count))
        sys.stdout.write(
            f"{count} of {options.nodes} agents start at the same time: {writes.total:,} requests "
            f"({writes.status} status, {writes.placement} placement, {writes.nodes} nodes). "
            f"At 2 a second they take {writes.total / 2:.0f} s.\n"
        )
    return int(found.last > TARGET_SECONDS or found.copies > TARGET_COPIES)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.bench.peers.large_group", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--gigabytes", type=int, default=140)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--scale",
        type=int,
        default=1,
        help="how many pieces are simulated as one, where all would take too long",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
