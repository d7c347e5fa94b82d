"""`kubectl localmodel plan`: what would happen if a file were applied. It changes nothing."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

import click

from crds.quantity import format_quantity
from deploy.kubectl.session import Command, Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from deploy.kube.client import KubeClient
    from deploy.kubectl.node_forecast import Download
    from deploy.kubectl.plan import Plan

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
    # These modules take long to import.
    from deploy.kubectl.plan_input import DocumentError, read_documents  # noqa: PLC0415

    try:
        documents = [one for file in files for one in read_documents(file.read(), file.name)]
    except (DocumentError, UnicodeDecodeError) as error:
        raise click.ClickException(str(error)) from None
    plan = plan_for(session.client(), documents, session.namespace, delete=delete)
    if session.as_json:
        click.echo(json.dumps(as_json(plan), indent=2))
    else:
        print_plan(plan)
    if not plan.all_admitted:
        context.exit(NOT_ADMITTED)


def plan_for(
    client: KubeClient, documents: Iterable[dict[str, Any]], namespace: str, *, delete: bool = False
) -> Plan:
    """Read what the plan of these documents needs, and make the plan."""
    from deploy.kubectl.plan import make_plan  # noqa: PLC0415
    from deploy.kubectl.plan_input import changes_of, read_foreign, read_settings  # noqa: PLC0415
    from deploy.kubectl.snapshot import read  # noqa: PLC0415

    snapshot = read(client)
    changes, unchecked = changes_of(
        client, documents, namespace=namespace or "default", delete=delete, now=snapshot.at
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
    from deploy.kubectl.plan import summary  # noqa: PLC0415

    return {**asdict(plan), "admitted": plan.all_admitted, "summary": summary(plan)}


def print_plan(plan: Plan) -> None:
    """Print the plan for people."""
    from rich.console import Console  # noqa: PLC0415

    from deploy.kubectl.plan import summary  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    for one in plan.outcomes:
        name = f"{one.namespace}/{one.name}" if one.namespace else one.name
        style = {True: "green", False: "red", None: "yellow"}[one.admitted]
        _line(console, f"{one.kind} {name}: {_verdict(one)}", style)
        _line(console, f"  {one.reason}: {one.message}")
        if one.admitted and one.ready[0] != one.reason:
            _line(console, f"  {one.ready[0]}: {one.ready[1]}")
        for word, claims in (("made", one.claims_made), ("deleted", one.claims_deleted)):
            if claims:
                _line(console, f"  claims to be {word}: {', '.join(claims)}")
    _print_downloads(console, plan.downloads)
    _print_copies(
        console,
        "Evicted",
        [
            (one.node, one.models, one.bytes, _why_evicted(one.reason, one.newcomers))
            for one in plan.evictions
        ],
    )
    _print_copies(
        console,
        "Without room",
        [
            (one.node, one.models, one.needed, f"{format_quantity(one.free)} of {one.of} are free")
            for one in plan.waits
        ],
    )
    _print_copies(
        console,
        "Removed",
        [
            (
                one.node,
                one.models,
                one.bytes,
                f"once {one.pods} pods have ended" if one.pods else "",
            )
            for one in plan.removals
        ],
    )
    for shift in plan.shifts:
        word = "admitted" if shift.admitted else "not admitted any more"
        _line(console, f"{shift.name} would be {word}: {shift.reason}: {shift.message}", "yellow")
    _line(console, f"In all: {summary(plan)}.", "bold")
    for note in plan.notes:
        _line(console, f"Note: {note}", "dim")


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False)


def _verdict(one: Any) -> str:
    if one.admitted is None:
        return "would be deleted"
    done = {"create": "created", "change": "changed", "nothing": "left as it is"}[one.action]
    if one.reason == "Refused":
        return f"would not be {'stored' if one.action == 'nothing' else done}"
    if not one.admitted:
        return f"would be {done}, and not be admitted"
    nodes = f"on {one.nodes} node{'' if one.nodes == 1 else 's'}"
    if one.kind == "LocalModelNodeGroup":
        return f"would be {done}, {nodes}"
    return f"would be {done} and admitted, {nodes}"


def _why_evicted(reason: str, newcomers: Sequence[str]) -> str:
    return f"{reason}, for {', '.join(newcomers)}" if newcomers else reason


def _print_downloads(console: Console, downloads: Sequence[Download]) -> None:
    """One row for the nodes that do the same."""
    nodes: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for one in downloads:
        kind = (one.models, one.bytes, one.known, one.waits_for_turn, one.again)
        nodes[kind].append(one.node)
    rows = [
        (_some(names), models, size, _how(known=known, waits=waits, again=again))
        for (models, size, known, waits, again), names in nodes.items()
    ]
    _print_copies(console, "Downloaded", rows)


def _how(*, known: bool, waits: bool, again: bool) -> str:
    parts = [
        "" if known else "by its modelSize",
        "after other nodes of the group" if waits else "",
        "again" if again else "",
    ]
    return ", ".join(filter(None, parts))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _print_copies(
    console: Console, title: str, rows: Sequence[tuple[str, Sequence[str], int, str]]
) -> None:
    if not rows:
        return
    from rich.table import Table  # noqa: PLC0415

    table = Table(title, "NODES", "SIZE", "", box=None, pad_edge=False, header_style="bold")
    for nodes, models, size, more in rows:
        table.add_row(", ".join(models), nodes, format_quantity(size), more)
    console.print(table)
