"""Finds uv, which installs packages of PyPI. `python -m deploy.local.uv` runs uv."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from deploy.local.layout import BUILD

if TYPE_CHECKING:
    from pathlib import Path

OWN_VENV = BUILD / "uv"
OWN_UV = OWN_VENV / "bin" / "uv"


def find_uv() -> str | None:
    """Path of the uv on PATH, or of the uv that bootstrap.py installed; None without both."""
    found = shutil.which(os.environ.get("UV") or "uv")
    if found:
        return found
    return str(OWN_UV) if OWN_UV.exists() else None


def install_command(target: Path, requirements: Path) -> list[str]:
    """The command that installs pinned packages, without dependencies, into a folder."""
    command = [find_uv() or str(OWN_UV), "pip", "install", "--python", sys.executable]
    return [
        *command,
        "--target",
        str(target),
        "--no-deps",
        "--require-hashes",
        "-r",
        str(requirements),
    ]


def main(arguments: list[str]) -> None:
    """Replace this process by uv."""
    program = find_uv()
    if program is None:
        sys.exit("error: there is no uv; what to do: rm -rf .venv, then make venv")
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
