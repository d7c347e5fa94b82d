"""The result of adopting a foreign directory, and the failures of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.structs.failures import DownloadError, FailureKind

# How many characters of a path a message shows.
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Adopted:
    """An adopted folder: bytes that it had, and bytes that were downloaded into it."""

    found: int
    added: int


def closed(path: str, problem: str, tree: object) -> str:
    """A message: not all users, or not the agent, may read a file or folder of `tree`."""
    return (
        f"{shown(path)} {problem}. Run chmod -R a+rX {tree} on the node, or grant the agent the "
        "capabilities DAC_OVERRIDE and FOWNER; the agent then tries again by itself"
    )


def foreign(place: object, why: str = "") -> DownloadError:
    """The failure for a foreign directory that is not adopted. why: the reason, if it was tried."""
    because = f", and cannot be adopted: {why}" if why else ""
    return DownloadError(
        FailureKind.FOREIGN_DIRECTORY,
        f"{place} exists and was not made by localmodel{because}. It is left alone: move it "
        "away, or delete it, and the model is downloaded",
    )


def shown(path: str) -> str:
    """The end of a path, quoted, for a message."""
    return repr(path[-_SHOWN_CHARACTERS:])
