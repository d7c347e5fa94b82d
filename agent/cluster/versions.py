"""Whether an object's state went back on the API server, as after a restore of etcd. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localmodel.agent.cluster.node_api import NodeObject


class Versions:
    """The resourceVersions of one object, as they came. Those of one API server only grow."""

    def __init__(self) -> None:
        self._uid: str | None = None
        self._told = 0
        self._newest = 0

    def went_back(self, found: NodeObject, *, fresh: bool) -> bool:
        """Take in one more form of the object. Returns whether its state is an older one.

        fresh: it was read just now, so that none that came before is newer. Otherwise a watch has
        told it, late maybe, and in order.
        """
        metadata = found["metadata"]
        uid, text = metadata.get("uid"), str(metadata["resourceVersion"])
        if uid != self._uid:
            self._uid, self._told, self._newest = uid, 0, 0
        if not text.isdecimal():
            # Kubernetes' own are numbers. Of others' nobody can tell.
            return False
        version = int(text)
        is_older = version < (self._newest if fresh else self._told)
        if is_older:
            self._told = self._newest = version
        elif not fresh:
            self._told = version
        self._newest = max(self._newest, version)
        return is_older
