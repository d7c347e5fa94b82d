"""Writes the files that are made from the code, or checks that they are what the code makes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TREE = Path(__file__).resolve().parents[1]


def write_or_check(
    make: Callable[[], Mapping[Path, str]],
    arguments: Sequence[str] | None,
    *,
    program: str,
    description: str | None,
    source: str,
) -> int:
    """Write the files, or with --check name those that differ and return 1.

    make: returns path (in the repository) and content of each file. source: what they are made
    from, for the message.
    """
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args(arguments).check
    stale = []
    for path, content in make().items():
        file = TREE / path
        if file.exists() and file.read_text() == content:
            continue
        stale.append(path)
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    for path in stale:
        done = f"differs from {source}: run `make generate`" if check else "written"
        sys.stdout.write(f"{path}: {done}\n")
    return 1 if check and stale else 0
