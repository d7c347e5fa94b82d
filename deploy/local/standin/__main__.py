"""The stand-in's command line."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from deploy.kube.client import KubeClient
from deploy.local.standin.manager import Manager

LOG = logging.getLogger("standin")

BANNER = (
    "This is a stand-in for Metacontroller, for trying and testing on one machine. It implements "
    "only the part that localmodel's controllers use, and it is not part of the product."
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.standin", description=BANNER)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="the cluster to work on")
    parser.add_argument(
        "--discovery-interval",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="how often to refresh the list of served kinds (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=4,
        help="concurrent syncs of each controller (default: %(default)s)",
    )
    parser.add_argument("--verbose", action="store_true", help="also log ignored errors")
    return parser.parse_args(arguments)


def main() -> NoReturn:
    """Run until SIGTERM or SIGINT."""
    options = parse()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    LOG.warning(BANNER)
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    manager = Manager(
        KubeClient.connect(options.kubeconfig),
        workers=options.workers,
        discovery_interval=options.discovery_interval,
    )
    manager.run(stop)
    LOG.info("stopped")
    logging.shutdown()
    # Without a wait for the threads: a watch or a hook call may block for minutes.
    os._exit(0)


if __name__ == "__main__":
    main()
