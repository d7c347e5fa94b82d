"""Makes `.venv` from the lock. It runs without installed packages, so it imports none."""

from __future__ import annotations

import sys

from deploy.local import uv
from deploy.local.console import Console
from deploy.local.errors import LocalError
from deploy.local.layout import BUILD, CHECKOUT, VENV
from deploy.local.running import run_logged
from deploy.local.signals import exit_on_signals

LOCK = CHECKOUT / "locks" / "dev.txt"
STAMP = VENV / ".installed"
LOGS = BUILD / "logs"


def main() -> int:
    """Make or refresh the virtual environment."""
    exit_on_signals()
    console = Console(sys.stdout)
    LOGS.mkdir(parents=True, exist_ok=True)
    try:
        program = _ensure_uv(console)
        with console.step("installing the Python packages of locks/dev.txt into .venv"):
            _make_venv(program)
    except LocalError as error:
        print(error.text(), file=sys.stderr)
        return 1
    STAMP.touch()
    return 0


def _ensure_uv(console: Console) -> str:
    found = uv.find_uv()
    if found:
        return found
    with console.step("installing uv (there is none on PATH)"):
        _run(
            [sys.executable, "-m", "venv", str(uv.OWN_VENV)],
            todo="install Python's venv module (on Debian: apt install python3-venv)",
        )
        requirements = str(CHECKOUT / "deploy" / "local" / "uv.txt")
        pip = [str(uv.OWN_VENV / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, "--require-hashes", "-r", requirements], todo="check the network")
    return str(uv.OWN_UV)


def _make_venv(program: str) -> None:
    if not (VENV / "bin" / "python").exists():
        _run([program, "venv", "--quiet", "--python", sys.executable, "--clear", str(VENV)])
    sync = [program, "pip", "sync", "--quiet", "--python", str(VENV / "bin" / "python")]
    _run([*sync, "--require-hashes", str(LOCK)], todo="check the network")


def _run(argv: list[str], *, todo: str = "") -> None:
    log = LOGS / "bootstrap.log"
    if run_logged(argv, log=log, cwd=CHECKOUT) != 0:
        shown = " ".join(argv)
        raise LocalError(f"failed: {shown}", detail=log.read_text()[-3000:], todo=todo)


if __name__ == "__main__":
    sys.exit(main())
