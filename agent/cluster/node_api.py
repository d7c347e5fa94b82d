"""The interface through which the loop reads and writes its LocalModelNode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from agent.structs.log import log
from crds.node import LocalModelNode

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

# A LocalModelNode as JSON.
NodeObject = dict[str, Any]


class ApiUnavailableError(Exception):
    """The API server did not answer, or answered with an error. The message says why."""


class NodeApi(Protocol):
    """Access to the one LocalModelNode of this node. Calls may come from several threads."""

    def read(self) -> NodeObject | None:
        """The object as it is now; None if the API server says that it does not exist.

        Raises ApiUnavailableError.
        """
        ...

    def write_status(self, version: str, status: dict[str, Any]) -> NodeObject | None:
        """Replace the status of the object that has this resourceVersion. Returns it as stored.

        None if the object has changed since or is gone, which the watch reports. Raises
        ApiUnavailableError.
        """
        ...

    def watch(self, observe: Callable[[NodeObject | None], None], stopped: threading.Event) -> None:
        """Call `observe` with each version of the object, None when it is gone, until stopped.

        Retries after every error, and raises nothing.
        """
        ...


def parse_node(found: NodeObject) -> LocalModelNode | None:
    """The object, or None if its spec is invalid.

    With an invalid spec the requested models are unknown, so the loop must not remove any. An
    invalid status, which another version or another agent wrote, is ignored and replaced later.
    """
    try:
        return LocalModelNode.model_validate(found)
    except ValidationError as error:
        if "status" in found:
            return parse_node({name: part for name, part in found.items() if name != "status"})
        log.warning("LocalModelNode is not understood", reason=str(error))
        return None
