"""What becomes of a folder that another agent made: adopted, or left alone with a failure. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from localmodel.agent.structs.failures import DownloadError, FailureKind

# Of a path, in a message.
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Adopted:
    """What became of a folder that was adopted: bytes that were there, and that were put in."""

    found: int
    added: int


def closed(path: str, problem: str, tree: object) -> str:
    """A file or a folder may not be read, by everybody or by the agent, and stays so."""
    return (
        f"{shown(path)} {problem}. Let everybody read it, by chmod -R a+rX {tree} on the node, or "
        "give the agent the capabilities DAC_OVERRIDE and FOWNER, and it is looked at again"
    )


def foreign(place: object, why: str = "") -> DownloadError:
    """The failure for a folder that stays somebody else's."""
    because = f", and cannot be adopted: {why}" if why else ""
    return DownloadError(
        FailureKind.FOREIGN_DIRECTORY,
        f"{place} is there and was not made by localmodel{because}. It is left alone: move it "
        "away, or delete it, and the model is downloaded",
    )


def shown(path: str) -> str:
    """The end of a path, quoted, for a message."""
    return repr(path[-_SHOWN_CHARACTERS:])
