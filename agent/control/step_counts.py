"""Counts what the rows of two steps differ by: pods that begin to use models, and new damage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.disk.on_disk import Found

if TYPE_CHECKING:
    from agent.control.rows import Row, Table
    from agent.structs.counts import Counts


class StepCounts:
    """Observes the rows of each step. Bounded by the rows, and by the node's pods."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        # The pods that use a model, by uid and key; None before the pods were known.
        self._users: frozenset[tuple[str, str]] | None = None
        self._damaged: frozenset[str] = frozenset()

    def observe(self, table: Table) -> None:
        """Take in the rows of a step."""
        self._observe_damage(table)
        if table.pods_known:
            self._observe_pods(table)

    def _observe_pods(self, table: Table) -> None:
        # Of the pods that ran before the agent started, only those count that still wait.
        is_first, before = self._users is None, self._users or frozenset()
        users: set[tuple[str, str]] = set()
        for row in table.rows.values():
            for pod in row.pods or ():
                use = (pod.uid, row.key)
                users.add(use)
                if use not in before and (pod.waits or not is_first):
                    self._counts.pod_started(_saved(row))
        self._users = frozenset(users)

    def _observe_damage(self, table: Table) -> None:
        damaged = [row for row in table.rows.values() if row.copy.found is Found.DAMAGED]
        for row in damaged:
            if row.key not in self._damaged:
                # Of a copy whose manifest cannot be read, nobody knows the files.
                self._counts.damaged(max(1, row.copy.bad_files))
        self._damaged = frozenset(row.key for row in damaged)


def _saved(row: Row) -> int | None:
    """The size of the model, if its copy is there."""
    return row.manifest.size if row.manifest is not None and row.copy.is_whole else None
