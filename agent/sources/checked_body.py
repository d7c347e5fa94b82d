"""Bodies whose file is checked after the last byte: for stores that cannot pin a request.

A file that was replaced while its ranges were read is noticed, whichever range ends last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.structs.remote import Body


class CheckedBody:
    """A body of `left` bytes; None: an unknown number. `check` raises DownloadError."""

    def __init__(self, body: Body, left: int | None, check: Callable[[], None]) -> None:
        self._body = body
        self._left = left
        self._check = check

    def read(self, size: int) -> bytes:
        """See Body."""
        try:
            piece = self._body.read(size)
        except DownloadError as error:
            if error.kind is FailureKind.CORRUPT:
                self._check()
            raise
        if self._left is not None:
            self._left -= len(piece)
        if not piece if self._left is None else piece and not self._left:
            self._check()
        return piece

    def abort(self) -> None:
        """See Body."""
        self._body.abort()

    def close(self) -> None:
        """See Body."""
        self._body.close()
