"""The interface of a source: it resolves URIs to models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agent.structs.credentials import Credentials
    from agent.structs.remote import RemoteModel


class Source(Protocol):
    """Lists and reads the models of some schemes. Calls may come from several threads."""

    def resolve(self, uri: str, credentials: Credentials, version: str | None, /) -> RemoteModel:
        """The model of a URI, with at least one file. Raises DownloadError.

        A source takes every setting from `credentials`, and what else the agent's node has only
        where they are the agent's own (`own`).
        `version` is the version of a former listing whose download was interrupted: it is listed
        again if the source still has it, otherwise the newest version is listed.
        """
        ...
