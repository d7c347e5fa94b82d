"""What each source provides: a resolver of URIs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from localmodel.agent.structs.credentials import Credentials
    from localmodel.agent.structs.remote import RemoteModel


class Source(Protocol):
    """How the models of some schemes are listed and read. Used by several threads at once."""

    def resolve(self, uri: str, credentials: Credentials, version: str | None, /) -> RemoteModel:
        """The model of a URI, with at least one file. Raises DownloadError.

        A source takes every setting from `credentials`, and what else the agent's node has only
        where they are the agent's own (`own`).
        `version` is the model's version that a former listing had and that is partly here: it is
        listed again if the source still has it, otherwise the newest is.
        """
        ...
