"""The command `why`: why a model is, or is not, on the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from deploy.kubectl import output
from deploy.kubectl.cells import cells_of_cache, groups_of
from deploy.kubectl.completion import complete_models, complete_nodes
from deploy.kubectl.details import read_details
from deploy.kubectl.links import LinkState
from deploy.kubectl.names import UnknownNameError, cache_of, node_of
from deploy.kubectl.session import Command, Session, pass_session
from deploy.kubectl.why import told_node, why

if TYPE_CHECKING:
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from deploy.kubectl.links import Chain, Link

# Exit codes beside those of all commands.
CODES = {LinkState.OK: 0, LinkState.WAITING: 3, LinkState.BROKEN: 4, LinkState.UNKNOWN: 5}
EPILOG = (
    "Exit codes: 0 the model is where it should be; 3 it waits, and goes on by itself; 4 a person "
    "has to act; 5 nothing is wrong as far as you may read the objects that show it; 1 the cluster "
    "cannot be read, or the model is unknown; 2 the command line or the kubeconfig is wrong."
)


@click.command(
    "why",
    cls=Command,
    epilog=EPILOG,
    short_help="Say why a model is, or is not, on the nodes.",
)
@click.argument("model", shell_complete=complete_models)
@click.argument("node", required=False, default="", shell_complete=complete_nodes)
@click.pass_context
@pass_session
def command(session: Session, context: click.Context, model: str, node: str) -> None:
    """Say why MODEL is, or is not, on the nodes: each link from the cache to the copy.

    MODEL is the name of a cache, or namespace/name. Without NODE, the last links are those of the
    node that shows best what is wrong.
    """
    client = session.client()
    snapshot = session.snapshot(client)
    try:
        cache = cache_of(snapshot, model, session.namespace)
        # A node that does not exist is a finding, if the user may list Nodes; a typing error is
        # more likely.
        node = node_of(snapshot, node) if node else ""
    except UnknownNameError as error:
        raise click.ClickException(str(error)) from None
    obj = snapshot.cache_by_name[cache]
    shown = node or told_node(snapshot, obj, cells_of_cache(snapshot, cache))
    details = read_details(client, cache, groups_of(obj), shown)
    chain = why(snapshot, cache, node, details)
    if session.as_json:
        output.show_json(as_json(chain))
    else:
        output.show(rendered(chain, snapshot.at, lines=output.is_terminal()))
    context.exit(CODES[chain.state])


def as_json(chain: Chain) -> dict[str, object]:
    """A chain as JSON: docs/kubectl.md has the fields."""
    return {
        "model": chain.model,
        "node": chain.node,
        "state": chain.state,
        "cause": chain.cause,
        "links": chain.links,
        "nodes": dict(chain.states),
    }


def rendered(chain: Chain, now: datetime, *, lines: bool) -> list[Table | Text]:
    """A chain as a line that says the cause, and a table of its links."""
    counts = ", ".join(f"{number} {state}" for state, number in sorted(chain.states.items()))
    cause = chain.cause
    head = output.text(f"{chain.model}: ", "bold")
    if cause is None:
        head.append("ok", output.STYLES["ok"])
    else:
        head.append(f"{cause.state.value}: {cause.name}", output.STYLES[cause.state.value])
        head.append_text(output.text(f": {cause.words}", "not bold"))
    rows = [_row(link, now, lines=lines) for link in chain.links]
    columns = [output.Column("LINK"), output.Column("STATE"), output.Column("SINCE")]
    if lines:
        columns.append(output.Column("WHAT", wraps=True))
    else:
        columns += [output.Column("REASON"), output.Column("WHAT"), output.Column("NEXT")]
    nodes = f"nodes: {counts}; the links below plan are those of {chain.node}" if counts else ""
    return [head, output.table(columns, rows), *([output.text(nodes)] if nodes else [])]


def _row(link: Link, now: datetime, *, lines: bool) -> tuple[str, ...]:
    """A row of the table. A terminal is too narrow for a column of reasons and one of advice."""
    since = output.ago(link.since, now)
    head = (link.name, link.state.value, since)
    if not lines:
        return (*head, link.reason or "-", link.words, link.next or "-")
    reason = f"{link.reason}: " if link.reason and link.state is not LinkState.OK else ""
    then = f"\n→ {link.next}" if link.next else ""
    return (*head, f"{reason}{link.words}{then}")
