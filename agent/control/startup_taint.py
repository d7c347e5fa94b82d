"""When the startup taint of the agent's Node goes, and what the agent reports until then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent.cluster.node_api import ApiUnavailableError
from agent.control.startup_models import important_models

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.cluster.node_api import NodeApi
    from agent.control.wanted import Wanted
    from crds.node import NodeModelStatus

# How long a node without a LocalModelNode keeps its taint: the hooks make the object within
# seconds of a node that is in a group.
ABSENT_SECONDS = 60.0
CONFIRM_SECONDS = 5.0
# How often the reason is reported while no state changes: Events expire after an hour.
REPEAT_SECONDS = 600.0

_AWAITS_OBJECT = "the node has no readable LocalModelNode yet, which lists its models"
_ABSENT = (
    f"the node has had no LocalModelNode for {ABSENT_SECONDS:.0f} s: it is in no "
    "LocalModelNodeGroup, or localmodel's hooks or Metacontroller do not run"
)


class TaintRemover(Protocol):
    """Removes the taint from the agent's Node, in the background. No call waits."""

    def keep(self, why: str) -> None:
        """Report why the taint stays."""
        ...

    def remove(self, why: str) -> None:
        """Remove the taint. Called once, as the last call."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether the Node has no taint any more, or never had one."""
        ...


class StartupTaint:
    """Decides once that the taint of a node goes. Called by the loop's thread alone."""

    def __init__(self, remover: TaintRemover, priority: int) -> None:
        self._remover = remover
        self._priority = priority
        self._is_decided = False
        # Since when there is no LocalModelNode (monotonic seconds).
        self._absent_since: float | None = None
        self._reported: object = None
        self._reported_at = 0.0

    def decide(
        self,
        wanted: Wanted | None,
        models: Iterable[NodeModelStatus],
        api: NodeApi,
        now: float,
    ) -> float | None:
        """Remove the taint if it is time. Returns when to decide again without news (monotonic).

        `models` is the status of the entries of `wanted`, which is None while there is no
        LocalModelNode. `api` reads the LocalModelNode.
        """
        if self._is_decided or self._remover.is_done:
            return None
        if wanted is None:
            return self._without_object(api, now)
        self._absent_since = None
        found = important_models(wanted, models, self._priority)
        if found.awaited:
            self._keep(found.states, found.message, now)
        else:
            self._remove(found.message)
        return None

    def _without_object(self, api: NodeApi, now: float) -> float | None:
        if self._absent_since is None:
            self._absent_since = now
        due = self._absent_since + ABSENT_SECONDS
        if now < due:
            self._keep(None, _AWAITS_OBJECT, now)
            return due
        try:
            is_absent = api.read() is None
        except ApiUnavailableError:
            is_absent = False
        if not is_absent:
            # The API server does not answer, or the watch is about to bring the object.
            return now + CONFIRM_SECONDS
        self._remove(_ABSENT)
        return None

    def _keep(self, states: object, message: str, now: float) -> None:
        reported = (self._priority, states)
        if reported == self._reported and now < self._reported_at + REPEAT_SECONDS:
            return
        self._reported, self._reported_at = reported, now
        self._remover.keep(message)

    def _remove(self, message: str) -> None:
        self._is_decided = True
        self._remover.remove(message)
