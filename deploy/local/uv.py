"""Finds uv, which installs everything that comes from PyPI. As a program, it runs it."""

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
    """The uv of the machine, or the one that was installed here."""
    found = shutil.which(os.environ.get("UV") or "uv")
    if found:
        return found
    return str(OWN_UV) if OWN_UV.exists() else None


def install_command(target: Path, requirements: Path) -> list[str]:
    """The command that installs pinned packages, without what they depend on, into a folder."""
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
    """Become uv."""
    program = find_uv()
    if program is None:
        sys.exit("error: there is no uv; what to do: rm -rf .venv, then make venv")
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
