"""Errors for people: what is wrong, where, and what to do about it."""

from __future__ import annotations


class LocalError(Exception):
    """Something that a person can act on."""

    def __init__(self, message: str, *, todo: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.todo = todo
        self.detail = detail

    def text(self) -> str:
        """The whole story, on a few lines."""
        parts = [f"error: {self}"]
        if self.detail:
            parts += [f"    {line}" for line in self.detail.splitlines()]
        if self.todo:
            parts.append(f"what to do: {self.todo}")
        return "\n".join(parts)


class PortTakenError(LocalError):
    """Another program took a port between its choice and its use."""
