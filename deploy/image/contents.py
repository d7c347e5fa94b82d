"""What an image contains: Python, the libraries that it needs, and the packages of a lock.

The files are those of the Python that runs this module, with the packages of its environment. An
image has neither a shell nor a package manager.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The folder of the packages and their programs in the images.
HOME = "/opt/localmodel"


@dataclass(frozen=True)
class Image:
    """One image."""

    name: str
    lock: str
    """The file with its packages, a path in the repository."""
    modules: tuple[str, ...]
    """The subpackages of `localmodel` (SHIPPED in deploy/wheel.py)."""
    programs: tuple[str, ...]


# By the target of the Dockerfile.
IMAGES = {
    "hooks": Image("localmodel-hooks", "locks/hooks.txt", ("crds", "hooks"), ("gunicorn",)),
    # The takeover uses the names of the hooks.
    "agent": Image(
        "localmodel-agent",
        "locks/agent.txt",
        ("agent", "crds", "hooks", "kube", "takeover"),
        ("localmodel-agent", "localmodel-takeover", "localmodel-uninstall"),
    ),
}

# Parts of Python's library that no server uses, or that are not Python's own.
_LEFT_OUT_LIBRARY = re.compile(
    r"(site-packages|dist-packages|test|idlelib|lib2to3|tkinter|turtledemo|turtle\.py|ensurepip"
    r"|venv|pydoc_data|curses|dbm|sqlite3|config-[^/]*)(/.*)?"
    r"|lib-dynload/(_tkinter|_curses(_panel)?|_dbm|_gdbm|_sqlite3|readline|nis|_?xxl?\w*|_test\w*"
    r"|_ctypes_test)\..*|.*/tests?/.*"
)
# The services of AWS that serve models, or credentials for them.
_SERVICES = "s3|sts|sso|sso-oidc|signin"
# Parts of packages that the programs do not use. kubernetes.aio alone needs aiohttp, which
# locks/left-out.txt keeps out of the locks of the images.
_LEFT_OUT_PACKAGES = re.compile(
    rf"kubernetes/aio/.*|botocore/data/(?!({_SERVICES})/)[^/]+/.*|.*\.(pyi|pyx|pxd|pyc)"
)
_NAMES = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def python() -> Path:
    """The program that runs this module."""
    return Path(os.path.realpath(sys.executable))


def standard_library() -> Iterator[tuple[str, Path]]:
    """Each file of Python's library that an image has: its path there, and the file."""
    top = Path(sysconfig.get_path("stdlib"))
    for file in top.rglob("*"):
        path = str(file.relative_to(top))
        if file.is_file() and file.suffix != ".pyc" and not _LEFT_OUT_LIBRARY.fullmatch(path):
            yield str(file), file


def installed(lock: str) -> Iterator[tuple[str, Path]]:
    """Each file of the packages of a lock: its path below site-packages, and the file."""
    site = Path(sysconfig.get_path("purelib"))
    for name in _NAMES.findall(lock):
        # The lock also has packages of other systems.
        with suppress(importlib.metadata.PackageNotFoundError):
            for file in importlib.metadata.distribution(name).files or ():
                located = Path(os.path.normpath(str(file.locate())))
                path = str(file)
                if ".." not in file.parts and located.is_file() and not left_out(path):
                    yield str(located.relative_to(site)), located


def left_out(path: str) -> bool:
    """Whether a file of a package, by its path below site-packages, is in no image."""
    return _LEFT_OUT_PACKAGES.fullmatch(path) is not None


def libraries(programs: Iterable[Path]) -> set[str]:
    """Paths of the machine's shared libraries that programs and other libraries need."""
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    site = sysconfig.get_path("purelib")
    # Libraries that a package brings are among its files.
    return {path for path in _LIBRARY.findall(listed.stdout) if not path.startswith(site)}
