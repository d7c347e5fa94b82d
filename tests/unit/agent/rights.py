"""A thread without the capabilities of root, as the agent's container has it."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of capabilities(7).
DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER = 1, 2, 3
# The user that KServe's jobs run as.
SOMEBODY = 1000

_VERSION_3 = 0x20080522

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of another user need root")


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@contextmanager
def without(*capabilities: int) -> Iterator[None]:
    """This thread, and those that it starts, have none of these meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()

    def call(name: str) -> None:
        if getattr(libc, name)(ctypes.byref(header), sets):
            raise OSError(ctypes.get_errno(), name)

    call("capget")
    before = sets[0].effective
    for capability in capabilities:
        sets[0].effective &= ~(1 << capability)
    call("capset")
    try:
        yield
    finally:
        sets[0].effective = before
        call("capset")
