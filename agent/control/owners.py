"""Whose each model is: the caches that want it, or wanted it last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.control.wanted import caches_in_use, is_doubted
from agent.structs.grants import Granted

if TYPE_CHECKING:
    from agent.disk.inventory import Inventory
    from agent.structs.manifest import CacheName
    from agent.structs.options import Options
    from crds.node import LocalModelNode

# In graces: how old a LocalModelNode must be to be believed about groups that it never listed.
TRUST_GRACES = 10


class Owners:
    """The caches of each key, and the groups that a LocalModelNode has ever listed."""

    def __init__(self, inventory: Inventory, options: Options) -> None:
        self._inventory = inventory
        self._options = options
        # The names outlive the wish.
        self.by_key: dict[str, tuple[CacheName, ...]] = {}
        # The groups that this very LocalModelNode has listed since we watch it.
        self._groups: frozenset[str] = frozenset()
        # Since when (monotonic) it is surely there; None: there is none.
        self._since: float | None = None

    def of(self, key: str) -> tuple[CacheName, ...]:
        """The caches of a key."""
        manifest = self._inventory.copy(key).manifest
        return self.by_key.get(key) or (manifest.caches if manifest else ())

    def granted(self, key: str) -> tuple[CacheName, ...]:
        """The caches of a key whose namespaces may have the copy that is here."""
        namespaces = Granted(self._inventory.copy(key).access).namespaces
        return tuple(name for name in self.of(key) if name.namespace in namespaces)

    def all(self) -> dict[str, tuple[CacheName, ...]]:
        """The caches of each key that is wanted or here."""
        return {key: self.of(key) for key in self.by_key.keys() | self._inventory.copies.keys()}

    def take(self, node: LocalModelNode) -> None:
        """Take in what a LocalModelNode lists."""
        if self._since is None:
            self._since = self._options.monotonic() - node.metadata.known_age.total_seconds()
        self._groups |= {group.name for group in node.spec.groups}
        self.by_key |= caches_in_use(node.spec.local_models)

    def begin_anew(self) -> None:
        """The LocalModelNode is another one, or gone."""
        self._groups = frozenset()
        self._since = None

    def doubts(self) -> dict[str, float]:
        """Until when (monotonic) copies stay of groups of which a new node has said nothing yet.

        Its age is not the difference of this node's clock and the API server's.
        """
        if self._since is None:
            return {}
        until = self._since + TRUST_GRACES * self._options.grace
        if until <= self._options.monotonic():
            return {}
        return {
            key: until
            for key, copy in self._inventory.copies.items()
            if copy.manifest and is_doubted(copy.manifest.caches, self._groups)
        }

    def keep(self, wanted: set[str], active: set[str]) -> None:
        """Remember on the disk whose a model is, to tell it when it goes, after a restart too."""
        for key, copy in list(self._inventory.copies.items()):
            if copy.manifest is None:
                continue
            names = self.by_key.setdefault(key, copy.manifest.caches)
            if key not in wanted or names == copy.manifest.caches or key in active:
                continue
            renamed = copy.manifest.model_copy(update={"caches": names})
            self._inventory.rewrite(key, renamed)
        kept = wanted | active | self._inventory.present()
        self.by_key = {key: names for key, names in self.by_key.items() if key in kept}
