"""The command `du`: disk use by node and by model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from deploy.kubectl import output
from deploy.kubectl.completion import complete_nodes
from deploy.kubectl.names import UnknownNameError, node_of
from deploy.kubectl.output import Column
from deploy.kubectl.session import Command, Session, pass_session
from deploy.kubectl.usage import usage

if TYPE_CHECKING:
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from deploy.kubectl.usage import ModelUse, NodeUse, Usage

# Without --all.
SHOWN = 20


@click.command("du", cls=Command, short_help="Show the disk use of nodes and models.")
@click.argument("node", required=False, default="", shell_complete=complete_nodes)
@click.option("--all", "everything", is_flag=True, help=f"All rows, not {SHOWN} at most.")
@pass_session
def command(session: Session, node: str, *, everything: bool) -> None:
    """Show the disk use by model and by node, or the folders of one NODE.

    EVICTABLE is what an agent may evict now to make room: copies of groups with the eviction policy
    LRU that are not pinned, and that no pod or service uses. OTHER is used by files that are no
    models. Sizes are those that the agents reported last.
    """
    snapshot = session.snapshot()
    found = usage(snapshot)
    if node:
        try:
            name = node_of(snapshot, node)
        except UnknownNameError as error:
            raise click.ClickException(str(error)) from None
        nodes = [one for one in found.nodes if one.name == name]
        if session.as_json:
            output.show_json(nodes)
            return
        if not nodes:
            raise click.ClickException(f"node {name} is in no group: it has no LocalModelNode")
        output.show(_node(nodes[0], snapshot.at))
        return
    if session.as_json:
        output.show_json(found)
    else:
        output.show(rendered(found, everything=everything))


def rendered(found: Usage, *, everything: bool) -> list[Table | Text]:
    """The disk use as tables."""
    most = max(len(found.models), len(found.nodes)) if everything else SHOWN
    parts: list[Table | Text] = [
        _models(found.models[:most]),
        output.text(""),
        _nodes(found.nodes[:most]),
    ]
    hidden = max(len(found.models) - most, 0), max(len(found.nodes) - most, 0)
    if any(hidden):
        more = f"and {hidden[0]} more models, {hidden[1]} more nodes; --all shows them"
        parts.append(output.text(more))
    foreign = [one for one in found.nodes if one.foreign]
    parts += [output.text(f"{one.name}: {one.foreign}") for one in foreign[:most]]
    return parts


def _models(models: list[ModelUse]) -> Table:
    columns = [
        Column("MODEL", wraps=True),
        Column("NODES", right=True),
        Column("COPIES", right=True),
        Column("PODS", right=True),
        Column("BYTES", right=True),
        Column("EVICTABLE", right=True),
    ]
    rows = [
        (
            ", ".join(one.caches),
            str(one.nodes),
            str(one.copies),
            str(one.pods),
            output.size(one.bytes),
            output.size(one.evictable),
        )
        for one in models
    ]
    return output.table(columns, rows)


def _nodes(nodes: list[NodeUse]) -> Table:
    columns = [
        Column("NODE"),
        *(
            Column(title, right=True)
            for title in ("DISK", "FREE", "MODELS", "EVICTABLE", "REMOVING", "OTHER")
        ),
    ]
    rows = [
        (
            one.name,
            *map(
                output.size,
                (one.capacity, one.free, one.models, one.evictable, one.removing, one.other),
            ),
        )
        for one in nodes
    ]
    return output.table(columns, rows)


def _node(node: NodeUse, now: datetime) -> list[Table | Text]:
    columns = [
        Column("KEY"),
        Column("MODEL", wraps=True),
        Column("BYTES", right=True),
        Column("PODS", right=True),
        Column("USED", right=True),
        Column("STATE"),
    ]
    rows = []
    for one in node.folders:
        state = "evictable" if one.evictable else "pinned" if one.pinned else "in use"
        if not one.cached:
            state = "unfinished"
        elif not one.wanted:
            state = "removing"
        elif not one.evictable and not one.pinned and not one.pods:
            state = "kept"
        used = f"{output.ago(one.last_used, now)} ago" if one.last_used else "never"
        rows.append(
            (one.key, ", ".join(one.caches), output.size(one.bytes), str(one.pods), used, state)
        )
    return [
        _nodes([node]),
        output.text(""),
        output.table(columns, rows),
        *([output.text(node.foreign)] if node.foreign else []),
    ]
