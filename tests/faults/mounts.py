"""Mounts in a private mount namespace of this process and its children. Needs root."""

from __future__ import annotations

import ctypes
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CLONE_NEWNS = 0x0002_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


class MountsError(Exception):
    """Mounts cannot be made. The message says why."""


def own_namespace() -> None:
    """Enter a new mount namespace, so that later mounts are private. Raises MountsError."""
    if os.geteuid() != 0:
        raise MountsError("only root may mount")
    if _LIBC.unshare(_CLONE_NEWNS):
        raise MountsError(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    try:
        _run("mount", "--make-rprivate", "/")
    except (OSError, subprocess.CalledProcessError) as error:
        raise MountsError(f"mounts cannot be made private: {_words(error)}") from None


def memory_disk(place: Path, size: int) -> None:
    """Mount a disk of `size` bytes. Raises MountsError."""
    place.mkdir(parents=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    except (OSError, subprocess.CalledProcessError) as error:
        raise MountsError(f"no tmpfs: {_words(error)}") from None


def share(place: Path) -> None:
    """Propagate mounts below a path to other mount namespaces, as on a node."""
    _run("mount", "--make-shared", str(place))


def bind(disk: Path, place: Path) -> None:
    """Bind-mount a disk at another path, over what is there."""
    _run("mount", "--bind", str(disk), str(place))


def bind_read_only(disk: Path, place: Path) -> None:
    """Bind-mount a disk read-only at another path."""
    bind(disk, place)
    _run("mount", "-o", "remount,bind,ro", str(place))


def take_off(place: Path) -> None:
    """Unmount the topmost mount of a path, also while it is in use."""
    _run("umount", "-l", str(place))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)


def _words(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return str(error.stderr).strip().splitlines()[-1]
    return str(error)
