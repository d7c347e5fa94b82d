"""Waits for a condition, with a timeout."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from deploy.local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

POLL_SECONDS = 0.1


def wait_until(check: Callable[[], T], what: str, *, seconds: float) -> T:
    """The first truthy value that a check returns. Raises LocalError on timeout."""
    end = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            raise LocalError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(POLL_SECONDS)
