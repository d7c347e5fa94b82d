"""How far the nodes' specs and the caches' counts are, from the events of watches. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_DELETED = "DELETED"


@dataclass(frozen=True)
class Version:
    """A version of a LocalModelNode, as its agent would have seen it."""

    resource_version: str
    generation: int


class Specs:
    """How many models each LocalModelNode lists."""

    def __init__(self) -> None:
        self.listed: dict[str, int] = {}
        self.versions: dict[str, Version] = {}
        # Of all nodes together.
        self.total = 0

    def see(self, kind: str, found: Mapping[str, Any]) -> None:
        """Take in an event."""
        metadata = found["metadata"]
        name = metadata["name"]
        self.total -= self.listed.pop(name, 0)
        if kind == _DELETED:
            self.versions.pop(name, None)
            return
        self.listed[name] = len(found.get("spec", {}).get("localModels", ()))
        self.total += self.listed[name]
        self.versions[name] = Version(metadata["resourceVersion"], metadata["generation"])

    def complete(self, models: int) -> dict[str, Version]:
        """The nodes that list so many models."""
        return {name: self.versions[name] for name, count in self.listed.items() if count >= models}


class Copies:
    """How many copies each LocalModelCache counts as available."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._available: dict[str, int] = {}
        # Of all caches together, no more than one for each node.
        self.total = 0

    def see(self, kind: str, found: Mapping[str, Any]) -> None:
        """Take in an event."""
        name = found["metadata"]["name"]
        self.total -= self._available.pop(name, 0)
        if kind == _DELETED:
            return
        copies = found.get("status", {}).get("copies") or {}
        self._available[name] = min(copies.get("available", 0), self._nodes)
        self.total += self._available[name]
