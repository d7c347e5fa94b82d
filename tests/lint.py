"""Runs import-linter on a copy of the sources, to which a test adds what it must refuse."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[1]
_SOURCES = ("agent", "crds", "deploy", "hooks", "localmodel")
_MARKS = re.compile(r"\x1b\[[0-9;]*m")


def lint_with(folder: Path, modules: Mapping[str, str]) -> str:
    """What import-linter says of our contracts once these modules are there; empty: it passes.

    `modules` are contents by path in the repository, `folder` an empty place for the copy.
    """
    for name in _SOURCES:
        shutil.copytree(
            ROOT / name,
            folder / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path, content in modules.items():
        assert not (folder / path).exists()
        (folder / path).write_text(content)
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return _MARKS.sub("", done.stdout) if done.returncode else ""
