"""Errors that a user of the local cluster can act on."""

from __future__ import annotations


class LocalError(Exception):
    """An error with what is wrong, what to do (`todo`), and lines of a log (`detail`)."""

    def __init__(self, message: str, *, todo: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.todo = todo
        self.detail = detail

    def text(self) -> str:
        """All parts of the error, on several lines."""
        parts = [f"error: {self}"]
        if self.detail:
            parts += [f"    {line}" for line in self.detail.splitlines()]
        if self.todo:
            parts.append(f"what to do: {self.todo}")
        return "\n".join(parts)


class PortTakenError(LocalError):
    """Another program listens on a port that was free when it was chosen."""
