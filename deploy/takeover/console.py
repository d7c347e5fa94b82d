"""What the commands of this package have in common: exit codes, the connection, what they print."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

OK = 0
FAILED = 1
# argparse's own for a wrong command line.
USAGE = 2
A_PERSON_FIRST = 3
INTERRUPTED = 130


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how to reach the API server."""
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="how to reach the API server (default: $KUBECONFIG, else ~/.kube/config if it exists, "
        "else the cluster that this pod runs in)",
    )
    parser.add_argument(
        "--context", metavar="NAME", help="context of the kubeconfig (default: its current one)"
    )


def usual_kubeconfig() -> Path | None:
    """The kubeconfig that kubectl would read; None if there is none, as in a pod."""
    named = os.environ.get("KUBECONFIG")
    usual = Path(named) if named else Path.home() / ".kube/config"
    return usual if named or usual.exists() else None


def print_list(title: str, sentences: Iterable[str]) -> None:
    """Print a title and numbered sentences, or nothing if there are none."""
    listed = list(sentences)
    if listed:
        print_line(title)
    for number, sentence in enumerate(listed, 1):
        print_line(f"{number:>3}. {sentence}")


def print_line(text: str, *, error: bool = False) -> None:
    """Print a line at once, so that a pipe shows each step when it begins."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)
