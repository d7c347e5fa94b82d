"""Detects that the API server went back to an older state, as after a restore of etcd. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.cluster.node_api import NodeObject


class Versions:
    """The observed resourceVersions of one object, which grow until the state goes back."""

    def __init__(self) -> None:
        self._uid: str | None = None
        self._watched = 0
        self._newest = 0

    def went_back(self, found: NodeObject, *, fresh: bool) -> bool:
        """Record an observed version of the object. Returns whether the state went back.

        fresh: the object was read just now, so it must be the newest of all. Otherwise a watch
        reported it, in order but possibly late.
        """
        metadata = found["metadata"]
        uid, text = metadata.get("uid"), str(metadata["resourceVersion"])
        if uid != self._uid:
            self._uid, self._watched, self._newest = uid, 0, 0
        if not text.isdecimal():
            # Versions of Kubernetes are numbers; other API servers' versions have no order.
            return False
        version = int(text)
        is_older = version < (self._newest if fresh else self._watched)
        if is_older:
            self._watched = self._newest = version
        elif not fresh:
            self._watched = version
        self._newest = max(self._newest, version)
        return is_older
