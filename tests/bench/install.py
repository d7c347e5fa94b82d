"""Installs the tools that downloads are compared with, and reports which are available."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.local import uv
from deploy.local.layout import BUILD
from tests.bench.running import BenchError

HERE = Path(__file__).resolve().parent
PROGRAM = HERE / "peer_process.py"
REQUIREMENTS = HERE / "peers.txt"
VENV = BUILD / "bench" / "venv"
PEERS_BIN = VENV / "bin"
PEERS_PYTHON = PEERS_BIN / "python"
STAMP = VENV / ".installed"

# Programs, their Debian packages, and the options that print their versions.
DEBIAN = {
    "nginx": ("nginx", "-v"),
    "curl": ("curl", "--version"),
    "openssl": ("openssl", "version"),
    "rclone": ("rclone", "version"),
    "aria2c": ("aria2", "--version"),
}
# The benchmark needs these programs.
_REQUIRED = ("nginx", "curl", "openssl")
_PROGRAM_OF_TOOL = {"rclone": "rclone", "aria2": "aria2c"}
_LIBRARIES = {"boto3": "boto3", "hf_transfer": "hf-transfer", "kserve-storage": "kserve-storage"}


def install() -> dict[str, str]:
    """Install everything. Returns the peers that are missing, and why. Raises BenchError."""
    _install_debian()
    lost = {name for name in DEBIAN if shutil.which(name) is None}
    needed = sorted(lost & set(_REQUIRED))
    if needed:
        packages = " ".join(DEBIAN[name][0] for name in needed)
        raise BenchError(
            f"there is no {' and no '.join(needed)}: install {packages} "
            f"(on Debian: apt-get install {packages})"
        )
    _install_python()
    return {
        tool: f"not measured: {program} is not installed (Debian's {DEBIAN[program][0]})"
        for tool, program in _PROGRAM_OF_TOOL.items()
        if program in lost
    }


def _install_debian() -> None:
    lost = [package for name, (package, _) in DEBIAN.items() if shutil.which(name) is None]
    if not lost or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    _say(f"installing Debian's {', '.join(lost)}")
    # Prevents the package from starting nginx as a service.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    options = ["install", "-y", "-q", "--no-install-recommends"]
    for argv in (["apt-get", "update", "-q"], ["apt-get", *options, *lost]):
        subprocess.run(argv, env=env, check=False, stdout=sys.stderr)


def _install_python() -> None:
    wanted = REQUIREMENTS.read_text()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    _say(f"installing the peers of {REQUIREMENTS.name} into {VENV}")
    program = uv.find_uv()
    if program is None:
        raise BenchError("there is no uv: run make venv first")
    VENV.parent.mkdir(parents=True, exist_ok=True)
    sync = [program, "pip", "sync", "--quiet", "--python", str(PEERS_PYTHON), "--require-hashes"]
    for argv in (
        [program, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)],
        [*sync, str(REQUIREMENTS)],
    ):
        if subprocess.run(argv, check=False).returncode:
            raise BenchError(f"failed: {' '.join(argv)}")
    STAMP.write_text(wanted)


def versions() -> list[str]:
    """The versions of the peers that are installed."""
    found = [
        f"{name} {_version([name, flag])}"
        for name, (_, flag) in DEBIAN.items()
        if shutil.which(name) is not None
    ]
    found.append(f"s5cmd {_version([str(PEERS_BIN / 's5cmd'), 'version'])}")
    script = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    numbers = subprocess.run(
        [str(PEERS_PYTHON), "-c", script, *_LIBRARIES.values()],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    return found + [f"{name} {number}" for name, number in zip(_LIBRARIES, numbers, strict=False)]


def _version(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    match = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return match[0] if match else "?"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
