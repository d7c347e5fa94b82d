"""Another revision's checkout, for as long as it is needed."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy.local.layout import CHECKOUT
from tests.bench.running import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def worktree(revision: str, folder: Path) -> Iterator[Path]:
    """A work tree of a revision, in this folder."""
    _remove(folder)
    try:
        _git("worktree", "add", "--force", "--detach", str(folder), commit(revision))
        yield folder
    finally:
        _remove(folder)


def commit(revision: str) -> str:
    """The commit that a revision is. Raises BenchError when there is none."""
    return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")


def _remove(folder: Path) -> None:
    if folder.exists():
        _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"git {' '.join(arguments)}: {done.stderr.strip() or 'failed'}")
    return done.stdout.strip()
