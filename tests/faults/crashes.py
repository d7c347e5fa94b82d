"""Part b: the agent is killed at a call, or in the middle of a write, and started again."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, NoReturn

from tests.faults.calls import Fault
from tests.faults.sweep import Kind, Lab, sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.calls import Call
    from tests.faults.report import Row

PART = "crashes"


def _changes(call: Call) -> bool:
    return call.changes


def _is_write(call: Call) -> bool:
    return call.name in {"write", "pwrite"} and call.size > 1


def _die(*_: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _half(
    _call: Call, real: Callable[..., int], arguments: tuple[Any, ...], _keywords: dict[str, Any]
) -> NoReturn:
    descriptor, piece, *rest = arguments
    real(descriptor, memoryview(piece)[: len(piece) // 2], *rest)
    _die()


KINDS = (
    Kind("SIGKILL at a call", Fault(_die, _changes), dies=True),
    Kind("SIGKILL in a write", Fault(_half, _is_write), dies=True),
    Kind("SIGKILL, and another in the next life", Fault(_die, _changes), dies=True, again=True),
)


def run(where: Lab) -> list[Row]:
    """Inject each kind of fault at each call."""
    return sweep(PART, KINDS, where)
