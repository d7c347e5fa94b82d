"""The command `status`: groups, models and nodes at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from deploy.kubectl import output
from deploy.kubectl.output import Column
from deploy.kubectl.overview import Overview, overview, with_trouble_first
from deploy.kubectl.session import Command, Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.text import Text

    from deploy.kubectl.follow import Follower
    from deploy.kubectl.overview import GroupLine, ModelLine, NodeLine
    from deploy.kubectl.snapshot import Snapshot

# Without --all: the nodes with a problem first.
NODES_SHOWN = 20
NOTES_SHOWN = 8
# At most this often a changed table is drawn.
_DRAW_SECONDS = 1.0
_IDLE_SECONDS = 10.0


@click.command("status", cls=Command, short_help="Show groups, models and nodes.")
@click.option("-w", "--watch", is_flag=True, help="Show changes until interrupted.")
@click.option("--all", "everything", is_flag=True, help=f"All nodes, not {NODES_SHOWN} at most.")
@pass_session
def command(session: Session, *, watch: bool, everything: bool) -> None:
    """Show groups, models and nodes at a glance, and what needs a person.

    With -n, of the LocalModelNamespaceCaches only those of the namespace. With --watch, only
    changes are read from the cluster.
    """
    if watch:
        _watch(session, everything=everything)
    else:
        _show(session, session.snapshot(), everything=everything)


def _show(session: Session, snapshot: Snapshot, *, everything: bool) -> None:
    found = overview(snapshot)
    if session.as_json:
        output.show_json(found)
    else:
        output.show(rendered(found, snapshot, everything=everything))


def _watch(session: Session, *, everything: bool) -> None:
    from deploy.kubectl.follow import Follower  # noqa: PLC0415

    with Follower(session.client(), session.namespace) as follower:
        try:
            if session.as_json or not output.is_terminal():
                _print_changes(session, follower, everything=everything)
            else:
                _draw_changes(follower, everything=everything)
        except KeyboardInterrupt:
            return


def _print_changes(session: Session, follower: Follower, *, everything: bool) -> None:
    """Print the whole status after each change, for a pipe."""
    seen, before = 0, None
    while True:
        snapshot = follower.snapshot()
        found = overview(snapshot)
        if before is None or _content(found) != _content(before):
            if before is not None and not session.as_json:
                output.echo()
            _show(session, snapshot, everything=everything)
            before = found
        seen = _next_change(follower, seen)


def _content(found: Overview) -> tuple[object, ...]:
    return (found.groups, found.models, found.nodes)


def _draw_changes(follower: Follower, *, everything: bool) -> None:
    """Draw the status anew in its place after each change."""
    from rich.console import Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    seen = 0
    with Live(console=output.console(), auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            snapshot = follower.snapshot()
            found = overview(snapshot)
            parts = rendered(found, snapshot, everything=everything)
            trouble = follower.trouble
            if trouble:
                parts.append(output.text(f"not up to date: {trouble}", "red"))
            live.update(Group(*parts), refresh=True)
            seen = _next_change(follower, seen)


def _next_change(follower: Follower, seen: int) -> int:
    """Wait for a change, and for further ones that come with it."""
    import time  # noqa: PLC0415

    changed = follower.wait(seen, _IDLE_SECONDS)
    time.sleep(_DRAW_SECONDS)
    return changed


def rendered(found: Overview, snapshot: Snapshot, *, everything: bool) -> list[Table | Text]:
    """The overview as tables."""
    parts: list[Table | Text] = [output.text(headline(found), "bold")]
    if found.groups:
        parts += [output.text(""), _groups(found.groups)]
    if found.models:
        parts += [output.text(""), _models(found.models, snapshot)]
    if found.nodes:
        nodes = with_trouble_first(found.nodes)
        shown = nodes if everything else nodes[:NODES_SHOWN]
        parts += [output.text(""), _nodes(shown)]
        if len(shown) < len(nodes):
            more = len(nodes) - len(shown)
            parts.append(output.text(f"and {more} more nodes; --all shows them"))
    parts += _notes(found)
    if found.not_visible:
        kinds = ", ".join(found.not_visible)
        parts += [
            output.text(""),
            output.text(f"not visible to you, or not installed: {kinds}", "yellow"),
        ]
    return parts


def _notes(found: Overview) -> list[Table | Text]:
    """What the conditions of groups and models that are not Ready say: a few, below the tables."""
    groups = [(one.name, one.reason, one.message) for one in found.groups if one.ready != "True"]
    models = [(one.title, one.reason, one.message) for one in found.models if one.ready != "True"]
    notes = groups + models
    lines: list[Table | Text] = [
        output.text(f"{name}: ", "bold").append_text(
            output.text(f"{reason}: {message}" if message else reason, "not bold")
        )
        for name, reason, message in notes[:NOTES_SHOWN]
    ]
    if len(notes) > NOTES_SHOWN:
        more = len(notes) - NOTES_SHOWN
        lines.append(output.text(f"and {more} more are not Ready: kubectl localmodel why MODEL"))
    return [output.text(""), *lines] if lines else []


def headline(found: Overview) -> str:
    """One line about the whole cluster."""
    copies = {state: number for state, number in found.copies.items() if state != "removing"}
    total, available = sum(copies.values()), copies.pop("available", 0)
    rest = "".join(f", {number} {state}" for state, number in sorted(copies.items()))
    rate = f" at {output.rate(found.rate)}" if found.rate else ""
    models, nodes = len(found.models), len(found.nodes)
    return (
        f"{models} {'model' if models == 1 else 'models'} on {nodes} "
        f"{'node' if nodes == 1 else 'nodes'}: {available} of {total} copies available{rest}{rate}"
    )


def _groups(groups: Sequence[GroupLine]) -> Table:
    columns = [
        Column("GROUP"),
        Column("READY"),
        Column("NODES", right=True),
        Column("MODELS", right=True),
        Column("COPIES", right=True),
        Column("USED", right=True),
        Column("LIMIT", right=True),
        Column("STATUS"),
    ]
    rows = [
        (
            one.name,
            one.ready or "-",
            str(one.nodes),
            str(one.models),
            f"{one.available}/{one.copies}",
            output.size(one.used),
            output.size(one.limit),
            one.reason,
        )
        for one in groups
    ]
    return output.table(columns, rows)


def _models(models: Sequence[ModelLine], snapshot: Snapshot) -> Table:
    # Where no nodes exchange models, nobody asks where the bytes came from.
    exchanged = any(one.peer_bytes for one in models)
    columns = [
        Column("MODEL"),
        Column("READY"),
        Column("SIZE", right=True),
        Column("COPIES", right=True),
        Column("%", right=True),
        Column("RATE", right=True),
        Column("LEFT", right=True),
        *([Column("ORIGIN", right=True), Column("PEERS", right=True)] if exchanged else ()),
        Column("PODS", right=True),
        Column("STATUS"),
    ]
    rows = [
        (
            one.title,
            one.ready or "-",
            output.size(one.size),
            f"{one.available}/{one.total}",
            str(one.percent),
            output.rate(one.rate),
            output.left(one.eta, snapshot.at),
            *((output.size(one.origin_bytes), output.size(one.peer_bytes)) if exchanged else ()),
            str(one.pods),
            one.reason,
        )
        for one in models
    ]
    return output.table(columns, rows)


def _nodes(nodes: Sequence[NodeLine]) -> Table:
    columns = [
        Column("NODE"),
        Column("READY"),
        Column("MODELS", right=True),
        Column("FAILED", right=True),
        Column("RATE", right=True),
        Column("DISK", right=True),
        Column("FREE", right=True),
        Column("PROBLEM", wraps=True),
    ]
    rows = [
        (
            one.name,
            str(one.ready),
            f"{one.available}/{one.models}",
            str(one.failed),
            output.rate(one.rate),
            output.size(one.capacity),
            output.size(one.free),
            one.problem or "-",
        )
        for one in nodes
    ]
    return output.table(columns, rows)
