"""The owners of each model: the caches that want it, or wanted it last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from agent.control.wanted import is_doubted

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.control.rows import Row
    from agent.control.wanted import Wanted
    from agent.disk.inventory import Inventory
    from agent.disk.on_disk import OnDisk
    from agent.structs.manifest import CacheName
    from agent.structs.options import Options
    from crds.node import LocalModelNode

# In grace periods: how old a LocalModelNode must be to be believed about groups that it never
# listed.
TRUST_GRACES = 10


class Owners:
    """The owners of each key, and the groups that a LocalModelNode has ever listed."""

    def __init__(self, inventory: Inventory, options: Options) -> None:
        self._inventory = inventory
        self._options = options
        # The names outlive the wish. Bounded by what is wanted, there or on its way: `remember`.
        self._by_key: dict[str, tuple[CacheName, ...]] = {}
        # The groups that this very LocalModelNode has listed since the agent watches it.
        self._groups: frozenset[str] = frozenset()
        # Since when (monotonic) the object surely exists; None: there is none.
        self._since: float | None = None

    def of(self, key: str, copy: OnDisk) -> tuple[CacheName, ...]:
        """The owners of a key that has this copy."""
        return self._by_key.get(key) or (copy.manifest.caches if copy.manifest else ())

    def observe(self, node: LocalModelNode, wanted: Wanted) -> None:
        """Take in a LocalModelNode, and what it asks for."""
        if self._since is None:
            self._since = self._options.monotonic() - node.metadata.known_age.total_seconds()
        self._groups |= wanted.groups.keys()
        self._by_key |= {key: wish.caches for key, wish in wanted.wishes.items()}

    def begin_anew(self) -> None:
        """The LocalModelNode is another one, or gone."""
        self._groups = frozenset()
        self._since = None

    def doubted_until(self, copy: OnDisk) -> float | None:
        """Until when (monotonic) a copy stays since a new node has not listed its group yet.

        The age of the object is not the difference of this node's clock and the API server's.
        """
        if self._since is None or copy.manifest is None:
            return None
        until = self._since + TRUST_GRACES * self._options.grace
        if until <= self._options.monotonic() or not is_doubted(copy.manifest.caches, self._groups):
            return None
        return until

    def remember(self, rows: Collection[Row]) -> None:
        """Write the owners of wanted copies to the disk, to report them after a restart too.

        The owners of models that are neither wanted nor there are forgotten, once the folders of
        their volumes have gone.
        """
        for row in rows:
            manifest = row.copy.manifest
            if manifest is None or row.has_noted_owners or not row.is_wanted or row.is_active:
                continue
            renamed = replace(manifest, caches=row.owners)
            self._inventory.rewrite(row.key, renamed)
        self._by_key = {
            row.key: row.owners
            for row in rows
            if row.is_wanted or row.is_present or (row.has_folder and row.owners)
        }
