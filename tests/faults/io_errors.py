"""Part a: the disk returns an error, or writes too little, and the process continues."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from tests.faults.calls import Fault, raising
from tests.faults.sweep import Kind, Lab, sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.calls import Call
    from tests.faults.report import Row

PART = "io_errors"


def _error(code: int) -> Callable[..., Any]:
    return raising(lambda call: OSError(code, os.strerror(code), call.path))


def _any(_call: Call) -> bool:
    return True


def _is_no_lookup(call: Call) -> bool:
    """Whether a fault meets the call: not a lookup, as a disk that fails there fails later too."""
    return call.changes or call.name in {"open", "read", "preadv"}


def _changes(call: Call) -> bool:
    return call.changes


def _creates(call: Call) -> bool:
    return call.creates


def _is_write(call: Call) -> bool:
    return call.name in {"write", "pwrite"} and call.size > 1


def _half(
    _call: Call, real: Callable[..., int], arguments: tuple[Any, ...], _keywords: dict[str, Any]
) -> int:
    descriptor, piece, *rest = arguments
    return real(descriptor, memoryview(piece)[: len(piece) // 2], *rest)


_FULL, _BROKEN = _error(errno.ENOSPC), _error(errno.EIO)
_READ_ONLY = _error(errno.EROFS)

KINDS = (
    Kind("EIO, once", Fault(_BROKEN, _any), heals=True),
    Kind("EIO, from then on", Fault(_BROKEN, _is_no_lookup, Fault(_BROKEN, _any))),
    Kind("ENOSPC, once", Fault(_FULL, _creates), heals=True),
    Kind("ENOSPC, from then on", Fault(_FULL, _creates, Fault(_FULL, _creates))),
    Kind("EROFS, from then on", Fault(_READ_ONLY, _changes, Fault(_READ_ONLY, _changes))),
    Kind("half a write, then the rest", Fault(_half, _is_write), heals=True),
    Kind("half a write, then ENOSPC", Fault(_half, _is_write, Fault(_FULL, _creates))),
)


def run(where: Lab) -> list[Row]:
    """Inject each kind of fault at each call."""
    return sweep(PART, KINDS, where)
