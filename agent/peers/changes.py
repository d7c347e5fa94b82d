"""The revisions by which peers learn what has changed since they asked last. Pure.

A revision has 32 random bits, the epoch, above a counter: one of an earlier start of the agent, or
of another download of the model, is not taken for one of these.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_COUNTER_BITS = 32


class Changes:
    """When each file of a model changed last. The caller holds a lock."""

    def __init__(self) -> None:
        # Never 0, with which a peer begins.
        self._first = (1 + secrets.randbelow((1 << 32) - 1)) << _COUNTER_BITS
        self.last = self._first
        # The files that have changed, by digest; the one that changed last is the last one.
        self._revisions: dict[str, int] = {}

    def note(self, digests: Iterable[str]) -> None:
        """Note that these files have changed. Each has a revision of its own."""
        for digest in digests:
            self._revisions.pop(digest, None)
            self.last += 1
            self._revisions[digest] = self.last

    def knows(self, revision: int) -> bool:
        """Whether a revision is one of these."""
        return self._first <= revision <= self.last

    def since(self, revision: int) -> list[tuple[str, int]]:
        """The files that have changed after a revision, with theirs, the oldest first.

        All files if the revision is not one of these.
        """
        after = revision if self.knows(revision) else 0
        found = []
        for digest, changed in reversed(self._revisions.items()):
            if changed <= after:
                break
            found.append((digest, changed))
        return found[::-1]
