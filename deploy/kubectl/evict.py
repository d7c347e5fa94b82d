"""`kubectl localmodel evict`: request the eviction of a copy, or say what that would do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click
import msgspec

from crds.node_requests import Operation
from crds.quantity import format_quantity
from deploy.kube import meta
from deploy.kube.errors import ForbiddenError
from deploy.kube.kinds import PODS
from deploy.kubectl import output
from deploy.kubectl.change import (
    EvictionEffect,
    NoCopyError,
    Progress,
    copy_on,
    eviction_effect,
    eviction_progress,
    key_of,
    pods_of_claims,
    request_time,
)
from deploy.kubectl.completion import complete_models, complete_nodes
from deploy.kubectl.names import UnknownNameError, cache_of
from deploy.kubectl.requesting import NOT_DONE, local_model_node, request, wait
from deploy.kubectl.session import Command, Session, pass_session

if TYPE_CHECKING:
    from deploy.kube.client import KubeClient
    from deploy.kubectl.snapshot import Snapshot

_NAMED = 5
_HELP = """Request that the agent of NODE evicts its copy of MODEL.

The copy goes by the rules of every eviction: not while a pod uses it, not if it is pinned, and only
where all of its groups evict. A model that a service, a workload or a pod refers to comes back.
Otherwise it stays away until something refers to it, or until --undo.

Exit code 3: with --wait, the copy was not evicted in time."""


@click.command("evict", cls=Command, help=_HELP)
@click.argument("model", shell_complete=complete_models)
@click.argument("node", shell_complete=complete_nodes)
@click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing.")
@click.option("--undo", is_flag=True, help="Withdraw the request; the model may come back.")
@click.option("--wait", "waits", is_flag=True, help="Wait until the copy is evicted.")
@click.option(
    "--timeout", type=float, default=60.0, show_default=True, help="Seconds that --wait waits."
)
@click.pass_context
@pass_session
def command(
    session: Session,
    context: click.Context,
    model: str,
    node: str,
    *,
    dry_run: bool,
    undo: bool,
    waits: bool,
    timeout: float,
) -> None:
    """Request an eviction."""
    client = session.client()
    snapshot = session.snapshot(client)
    try:
        cache = snapshot.cache_by_name[cache_of(snapshot, model, session.namespace)]
        found, key = local_model_node(snapshot, node), key_of(cache)
        if not undo:
            copy_on(found, key, model)
    except (UnknownNameError, NoCopyError) as error:
        raise click.ClickException(str(error)) from None
    moment = None if undo else request_time(found, key, snapshot.at)
    effect = eviction_effect(found, key)
    pods = _pods_of(client, snapshot, effect) if effect.pods and not undo else []
    if not dry_run:
        request(client, found, Operation.EVICT, key, moment)
    progress = Progress(done=False)
    if waits and moment and not dry_run:
        progress = wait(client, node, partial(eviction_progress, key=key, time=moment), timeout)
    if session.as_json:
        more = {"podNames": pods, "dryRun": dry_run, "undo": undo, "evicted": progress.done}
        output.show_json({**msgspec.to_builtins(effect), **more, "message": progress.message})
    elif undo:
        output.echo(f"{model} may come back to {node} where it has room{_dry(dry_run)}")
    else:
        _print(effect, pods, progress, dry_run=dry_run, seconds=timeout if waits else None)
    if waits and moment and not (dry_run or progress.done):
        context.exit(NOT_DONE)


def _print(
    effect: EvictionEffect,
    pods: list[str],
    progress: Progress,
    *,
    dry_run: bool,
    seconds: float | None,
) -> None:
    """Print what an eviction does, and where it stands after these seconds (None: no wait)."""
    for line in words(effect, pods, dry_run=dry_run):
        output.echo(line)
    if progress.done:
        output.echo("evicted")
    elif seconds is not None and not dry_run:
        output.echo(f"not evicted after {seconds:g} s: {progress.message or 'no report yet'}")


def words(effect: EvictionEffect, pods: list[str], *, dry_run: bool) -> list[str]:
    """What an eviction does, line by line."""
    size, models = format_quantity(effect.bytes), ", ".join(effect.models)
    lines = [
        f"{effect.node}: the copy of {models} is to be evicted{_dry(dry_run)}; it takes {size}"
    ]
    if effect.hindrance:
        lines.append(f"it stays for now: {effect.hindrance}")
    if pods:
        more = len(pods) - _NAMED
        lines.append(f"pods: {', '.join(pods[:_NAMED])}{f' and {more} more' if more > 0 else ''}")
    if effect.returns:
        lines.append("it is downloaded again afterwards, since something refers to it")
    else:
        lines.append(
            "it stays away until a service, a workload or a pod refers to it, or until --undo"
        )
    return lines


def _dry(dry_run: bool) -> str:
    return " (dry run)" if dry_run else ""


def _pods_of(client: KubeClient, snapshot: Snapshot, effect: EvictionEffect) -> list[str]:
    """The pods of the node that mount a claim of the copy's caches, if they may be listed."""
    query = {"fieldSelector": f"spec.nodeName={effect.node}"}
    try:
        page = client.request("GET", PODS.path(), doing="listing pods", query=query)
    except ForbiddenError:
        return []
    caches = [
        cache
        for cache in snapshot.cache_by_name.values()
        if key_of(cache) == effect.key and meta.name(cache)
    ]
    return pods_of_claims(page.get("items") or (), caches)
