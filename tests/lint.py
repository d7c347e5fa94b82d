"""Runs import-linter on a copy of the sources, to which a test adds what it must refuse."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[1]
_SOURCES = ("agent", "crds", "deploy", "hooks")
NOTHING: Mapping[str, str] = MappingProxyType({})
_MARKS = re.compile(r"\x1b\[[0-9;]*m")


def lint_with(folder: Path, modules: Mapping[str, str], more: Mapping[str, str] = NOTHING) -> str:
    """What import-linter reports once these modules are there; empty: it passes.

    `modules` are contents of new files by path in the repository, `more` are lines that are added
    to files, `folder` is an empty place for the copy.
    """
    for name in _SOURCES:
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path, content in modules.items():
        assert not (folder / path).exists()
        (folder / path).write_text(content)
    for path, lines in more.items():
        with (folder / path).open("a") as file:
            file.write(f"\n{lines}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return _MARKS.sub("", done.stdout) if done.returncode else ""
