"""`kubectl localmodel plan`: what would happen if a file were applied. It changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click
import msgspec

from crds.quantity import format_quantity
from deploy.kube.kinds import GROUPS
from deploy.kubectl import output
from deploy.kubectl.names import title
from deploy.kubectl.plan import REFUSED, Action, make_plan, summary
from deploy.kubectl.plan_input import (
    DocumentError,
    changes_of,
    read_documents,
    read_foreign,
    read_settings,
)
from deploy.kubectl.session import Command, Session, pass_session
from deploy.kubectl.snapshot import read
from hooks.envelope import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table
    from rich.text import Text

    from deploy.kube.client import KubeClient
    from deploy.kubectl.node_forecast import Download, Eviction, Removal, Wait
    from deploy.kubectl.plan import Outcome, Plan

    _OnNode = Download | Eviction | Wait | Removal

# Of the exit code: something would not be admitted.
NOT_ADMITTED = 2
# How many nodes of one model are named in a table.
_NAMED = 5

_HELP = """Say what would happen if FILE were applied, and change nothing.

FILE has LocalModelCaches, LocalModelNamespaceCaches and LocalModelNodeGroups, new or changed; - is
the standard input. The API server checks each document without storing it. Then the hooks' own
functions decide here which caches are admitted, which nodes download them and which claims are
made, and the agents' own which copies are evicted.

Exit code 0: every document would be stored, and every cache be admitted. 2: not so."""


@click.command("plan", cls=Command, help=_HELP)
@click.option(
    "-f",
    "--filename",
    "files",
    type=click.File("r", encoding="utf-8"),
    multiple=True,
    required=True,
    metavar="FILE",
    help="File to plan; may be given several times. - is the standard input.",
)
@click.option("--delete", is_flag=True, help="Plan the deletion of the objects that FILE names.")
@pass_session
@click.pass_context
def command(
    context: click.Context, session: Session, files: Sequence[TextIO], delete: bool
) -> None:
    """Print the plan."""
    try:
        documents = [one for file in files for one in read_documents(file.read(), file.name)]
    except (DocumentError, UnicodeDecodeError) as error:
        raise click.ClickException(str(error)) from None
    try:
        plan = plan_for(session.client(), documents, session.usual_namespace(), delete=delete)
    except BadRequest as error:
        raise click.ClickException(f"the hooks cannot plan this: {error}") from None
    if session.as_json:
        output.show_json(as_json(plan))
    else:
        print_plan(plan)
    if not plan.all_admitted:
        context.exit(NOT_ADMITTED)


def plan_for(
    client: KubeClient, documents: Iterable[dict[str, Any]], namespace: str, *, delete: bool = False
) -> Plan:
    """Read what the plan of these documents needs, and make the plan.

    namespace: of documents that name none.
    """
    snapshot = read(client)
    changes, unchecked = changes_of(
        client, documents, namespace=namespace, delete=delete, now=snapshot.at
    )
    settings, assumed = read_settings(client)
    foreign, unread = read_foreign(client, changes, settings)
    hidden = [
        f"{kind}s could not be read, and count as none: {why}"
        for kind, why in snapshot.forbidden.items()
    ]
    return make_plan(snapshot, changes, foreign, settings, (*unchecked, *assumed, *unread, *hidden))


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""
    return {**msgspec.to_builtins(plan), "admitted": plan.all_admitted, "summary": summary(plan)}


def print_plan(plan: Plan) -> None:
    """Print the plan for people."""
    parts: list[Table | Text] = []
    for one in plan.outcomes:
        style = output.STYLES["waiting" if one.admitted is None else str(one.admitted)]
        parts.append(
            output.text(f"{one.kind} {title((one.namespace, one.name))}: {_verdict(one)}", style)
        )
        parts += [output.text(f"  {line}") for line in _details(one)]
    parts += [_table(kind, rows) for kind, rows in _rows(plan).items() if rows]
    for shift in plan.shifts:
        word = "admitted" if shift.admitted else "not admitted any more"
        parts.append(output.text(f"{shift.name} would be {word}: {shift.reason}: {shift.message}"))
    parts.append(output.text(f"In all: {summary(plan)}.", "bold"))
    parts += [output.text(f"Note: {note}") for note in plan.notes]
    output.show(parts)


def _verdict(one: Outcome) -> str:
    if one.action is Action.DELETE and one.admitted is None:
        return "would be deleted"
    done = {
        Action.CREATE: "created",
        Action.CHANGE: "changed",
        Action.NOTHING: "left as it is",
        Action.DELETE: "deleted",
    }[one.action]
    if one.reason == REFUSED:
        return f"would not be {done}"
    if not one.admitted:
        return f"would be {done}, and not be admitted"
    nodes = f"on {one.nodes} node{'' if one.nodes == 1 else 's'}"
    if one.kind == GROUPS.name:
        return f"would be {done}, {nodes}"
    return f"would be {done} and admitted, {nodes}"


def _details(one: Outcome) -> Iterable[str]:
    yield f"{one.reason}: {one.message}"
    if one.admitted and one.ready_reason not in {"", one.reason}:
        yield f"{one.ready_reason}: {one.ready_message}"
    if one.claims_made:
        yield f"claims to be made: {', '.join(one.claims_made)}"
    if one.claims_deleted:
        yield f"claims to be deleted: {', '.join(one.claims_deleted)}"


# Model, nodes, bytes of each node, and more words.
_Row = tuple[Sequence[str], str, int, str]


def _rows(plan: Plan) -> dict[str, list[_Row]]:
    """The rows of each table, by its title."""
    return {
        "DOWNLOADED": _grouped((one, one.bytes, _how(one)) for one in plan.downloads),
        "EVICTED": _grouped(
            (one, one.bytes, _why_evicted(one.reason, one.newcomers)) for one in plan.evictions
        ),
        "WITHOUT ROOM": _grouped(
            (one, one.needed, f"{format_quantity(one.free)} of {one.of} are free, and nothing goes")
            for one in plan.waits
        ),
        "REMOVED": _grouped(
            (one, one.bytes, f"once {one.pods} pods have ended" if one.pods else "")
            for one in plan.removals
        ),
    }


def _grouped(rows: Iterable[tuple[_OnNode, int, str]]) -> list[_Row]:
    """One row for all nodes that do the same."""
    nodes: dict[tuple[tuple[str, ...], int, str], list[str]] = defaultdict(list)
    for one, size, how in rows:
        nodes[one.models, size, how].append(one.node)
    return [(models, _some(names), size, how) for (models, size, how), names in nodes.items()]


def _how(one: Download) -> str:
    words = {
        "by its modelSize": not one.known,
        "after other nodes of the group": one.waits_for_turn,
        "again": one.again,
    }
    return ", ".join(word for word, holds in words.items() if holds)


def _why_evicted(reason: str, newcomers: Sequence[str]) -> str:
    return f"{reason}, for {', '.join(newcomers)}" if newcomers else reason


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _table(kind: str, rows: Iterable[_Row]) -> Table:
    columns = [
        output.Column(kind, wraps=True),
        output.Column("NODES", wraps=True),
        output.Column("SIZE", right=True),
        output.Column("HOW", wraps=True),
    ]
    cells = [
        (", ".join(models), nodes, format_quantity(size), how or "-")
        for models, nodes, size, how in rows
    ]
    return output.table(columns, cells)
