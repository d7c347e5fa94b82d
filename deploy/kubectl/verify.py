"""`kubectl localmodel verify`: request that agents read their copies of a model whole, soon."""

from __future__ import annotations

import time
from functools import partial

import click

from crds.node_requests import Operation, format_request_time
from deploy.kube import meta
from deploy.kubectl import output
from deploy.kubectl.change import (
    NoCopyError,
    Progress,
    copy_on,
    key_of,
    nodes_with,
    request_time,
    verification_progress,
)
from deploy.kubectl.completion import complete_models, complete_nodes
from deploy.kubectl.names import UnknownNameError, cache_of
from deploy.kubectl.requesting import NOT_DONE, local_model_node, request, wait
from deploy.kubectl.session import Command, Session, pass_session

_HELP = """Request that the agent of NODE, or of each node with a copy, reads its copy of MODEL
whole and compares it with what was downloaded.

The agent reads the copy before all others, at its --scrub-bytes-per-second, and repairs a damaged
one. verifiedTime of the LocalModelNode says when that was done.

Exit code 3: with --wait, not every copy was verified in time."""


@click.command("verify", cls=Command, help=_HELP)
@click.argument("model", shell_complete=complete_models)
@click.argument("node", required=False, default="", shell_complete=complete_nodes)
@click.option("--wait", "waits", is_flag=True, help="Wait until the copies are verified.")
@click.option(
    "--timeout", type=float, default=3600.0, show_default=True, help="Seconds that --wait waits."
)
@click.pass_context
@pass_session
def command(
    session: Session, context: click.Context, model: str, node: str, *, waits: bool, timeout: float
) -> None:
    """Request verifications."""
    client = session.client()
    snapshot = session.snapshot(client)
    try:
        cache = snapshot.cache_by_name[cache_of(snapshot, model, session.namespace)]
        key = key_of(cache)
        nodes = [local_model_node(snapshot, node)] if node else nodes_with(snapshot, key, model)
        for one in nodes:
            copy_on(one, key, model)
    except (UnknownNameError, NoCopyError) as error:
        raise click.ClickException(str(error)) from None
    moments = {meta.name(one): request_time(one, key, snapshot.at) for one in nodes}
    for one in nodes:
        request(client, one, Operation.VERIFY, key, moments[meta.name(one)])
    stands = {name: Progress(done=False, message="requested") for name in moments}
    if waits:
        deadline = time.monotonic() + timeout
        for name, moment in moments.items():
            judge = partial(verification_progress, key=key, time=moment)
            stands[name] = wait(client, name, judge, deadline - time.monotonic())
    if session.as_json:
        output.show_json(
            [
                {
                    "node": name,
                    "requestedTime": format_request_time(moments[name]),
                    "done": stand.done,
                    "message": stand.message,
                }
                for name, stand in stands.items()
            ]
        )
    else:
        for name, stand in stands.items():
            output.echo(f"{name}: {stand.message or 'verified'}")
    if waits and not all(stand.done for stand in stands.values()):
        context.exit(NOT_DONE)
