"""The progress of a model's copies: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from crds.quantity import format_quantity
from deploy.kube.kinds import LOCAL_MODEL_NODES
from deploy.local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deploy.kube.client import KubeClient

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Row:
    """A node's copy, from the status of its LocalModelNode."""

    node: str
    state: str = "-"
    size: int = 0
    here: int = 0
    bytes_per_second: int = 0

    @property
    def percent(self) -> int:
        """The percentage of the model's bytes that the node has."""
        return 100 * self.here // self.size if self.size else 0

    def text(self) -> str:
        """The row as a line."""
        return f"  {self.node:<10} {self.state:<12} {self.percent:>3}%  {self.amount()}".rstrip()

    def amount(self) -> str:
        """The bytes that the node has, all bytes, and the speed, as text."""
        if not self.size:
            return ""
        speed = f", {format_quantity(self.bytes_per_second)}/s" if self.bytes_per_second else ""
        return f"{format_quantity(self.here)} of {format_quantity(self.size)}{speed}"


def rows(local_model_nodes: Sequence[dict[str, Any]], names: Sequence[str], key: str) -> list[Row]:
    """A row for each node name, of the model with this key."""
    found = {
        obj["metadata"]["name"]: model
        for obj in local_model_nodes
        for model in obj.get("status", {}).get("models", ())
        if model["key"] == key
    }
    return [_row(name, found.get(name)) for name in names]


def _row(name: str, model: dict[str, Any] | None) -> Row:
    if model is None:
        return Row(name)
    size = model.get("size") or 0
    here = size if model["cached"] else model.get("downloadedBytes") or 0
    return Row(name, model["state"], size, here, model.get("bytesPerSecond") or 0)


def follow(
    api: KubeClient, names: Sequence[str], key: str, until: Callable[[], bool], *, seconds: float
) -> None:
    """Show the copies of the nodes until a check is true. Raises LocalError on timeout."""
    console = RichConsole()
    end = time.monotonic() + seconds
    shown: dict[str, str] = {}
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            done = until()
            now = rows(api.list(LOCAL_MODEL_NODES), names, key)
            if console.is_terminal:
                live.update(_table(now), refresh=True)
            else:
                _print_changes(now, shown)
            if done:
                return
            if time.monotonic() > end:
                raise LocalError(f"the nodes do not have the model after {seconds:.0f} s")
            time.sleep(POLL_SECONDS)


def _print_changes(now: Sequence[Row], shown: dict[str, str]) -> None:
    for row in now:
        if shown.get(row.node) != row.state:
            shown[row.node] = row.state
            print(row.text(), flush=True)


def _table(now: Sequence[Row]) -> Table:
    table = Table("node", "state", "progress", "bytes", box=None, pad_edge=True)
    for row in now:
        bar = ProgressBar(total=100, completed=row.percent, width=30)
        table.add_row(row.node, row.state, bar, row.amount())
    return table
