"""Bodies that are followed by a check, where a request can have no condition that holds to its end.

The check comes after the last byte, so whatever was replaced before it is noticed, whichever of
several ranges ends last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localmodel.agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from localmodel.agent.structs.remote import Body


class CheckedBody:
    """A body of `left` bytes, None where nobody knows. `check` raises DownloadError."""

    def __init__(self, body: Body, left: int | None, check: Callable[[], None]) -> None:
        self._body = body
        self._left = left
        self._check = check

    def read(self, size: int) -> bytes:
        """As of every body."""
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
        """As of every body."""
        self._body.abort()

    def close(self) -> None:
        """As of every body."""
        self._body.close()
