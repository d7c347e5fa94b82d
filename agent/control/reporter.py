"""When the status is written: news at once, progress now and then, and nothing without a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cluster.node_api import ApiUnavailableError
from agent.control.status import NONE_KEPT, StatusBuilder, is_news, with_former_pods
from agent.control.status_size import storable
from agent.structs.log import log

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from agent.cluster.node_api import NodeApi
    from agent.control.eviction_requests import Kept
    from agent.control.rows import Table
    from agent.control.waiting import Waiting
    from crds.base import Condition
    from crds.node import LocalModelNode, LocalModelNodeStatus, NodeModelStatus
    from crds.peers import AgentPeer

FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 10.0


class Reporter:
    """Writes the status of one LocalModelNode. Times are monotonic seconds.

    `peer` is where the agent serves the agents of other nodes; None: nowhere.
    """

    def __init__(
        self, api: NodeApi, progress_seconds: float, peer: AgentPeer | None = None
    ) -> None:
        self._api = api
        self._progress_seconds = progress_seconds
        self._uid = ""
        self._version = ""
        self._builder = StatusBuilder(peer)
        # The status of the last step's entries, written or not, with all messages.
        self.models: tuple[NodeModelStatus, ...] = ()
        self.conditions: tuple[Condition, ...] = ()
        # Whether the last write of a status failed, and no later write has made up for it.
        self.is_behind = False
        # The status that the API server has, as far as the agent knows.
        self._last: LocalModelNodeStatus | None = None
        self._last_at = 0.0
        self._retry_at = 0.0
        self._pause = 0.0

    def seen(self, version: str) -> None:
        """The object has this resourceVersion now.

        So the API server is there, and a write that failed may be tried again at once.
        """
        self._version = version
        self._retry_at = 0.0

    def report(
        self,
        node: LocalModelNode,
        table: Table,
        waiting: Mapping[str, Waiting],
        suspended: Collection[str],
        time: datetime,
        *,
        kept: Mapping[str, Kept] = NONE_KEPT,
    ) -> float | None:
        """Write the status if it is due. Returns when to report again (None: on the next news).

        `waiting`, `suspended` and `kept` are by key, as planned; `time` is the wall clock's.
        """
        now = table.now
        if self._last is None or node.metadata.uid != self._uid:
            self._uid, self._last = node.metadata.uid, node.status
            self._last_at = now - self._progress_seconds
        built = self._builder.build(
            table, waiting, suspended, self._last.conditions, time, kept=kept
        )
        self.models, self.conditions = built.models, built.conditions
        status = storable(built)
        if not table.pods_known:
            status = with_former_pods(status, self._last)
        differs = status != self._last
        if differs and is_news(self._last, status):
            due = now
        elif differs or node.status != self._last:
            # Progress can wait. A status that differs from the last one written may be of an older
            # version of the object; if not, somebody else wrote it, and it is corrected.
            due = self._last_at + self._progress_seconds
        else:
            self.is_behind = False
            return None
        due = max(due, self._retry_at)
        return due if due > now else self._write(status, now)

    def _write(self, status: LocalModelNodeStatus, now: float) -> float | None:
        try:
            stored = self._api.write_status(self._version, status.to_json())
        except ApiUnavailableError as error:
            self._pause = min(MAX_RETRY_SECONDS, max(FIRST_RETRY_SECONDS, self._pause * 2))
            self._retry_at = now + self._pause
            self.is_behind = True
            log.warning("Could not write the status", reason=str(error), retrySeconds=self._pause)
            return self._retry_at
        self._pause, self._last_at = 0.0, now
        if stored is None:
            # The object has changed, or is gone: the watch is about to bring that.
            self._retry_at = now + MAX_RETRY_SECONDS
            self.is_behind = True
            return self._retry_at
        self._version = str(stored["metadata"]["resourceVersion"])
        self._last, self._retry_at = status, 0.0
        self.is_behind = False
        return None
