"""`kubectl localmodel pin` and `unpin`: whether a model may be evicted."""

from __future__ import annotations

import click

from deploy.kube.errors import ApiError, ConflictError, ForbiddenError
from deploy.kube.kinds import CACHES, NAMESPACE_CACHES
from deploy.kube.raw_client import APPLY
from deploy.kubectl import output
from deploy.kubectl.change import MANAGER, retention_apply
from deploy.kubectl.completion import complete_models
from deploy.kubectl.names import UnknownNameError, cache_of, title
from deploy.kubectl.session import Command, Session, pass_session

_HELP = """Set spec.retention of MODEL to Pinned: no node evicts it.

If another field manager, such as Argo CD, owns spec.retention with another value, nothing changes:
change it there, or take the field over with --force."""


@click.command("pin", cls=Command, help=_HELP)
@click.argument("model", shell_complete=complete_models)
@click.option("--force", is_flag=True, help="Take spec.retention over from its field manager.")
@pass_session
def command(session: Session, model: str, *, force: bool) -> None:
    """Pin a model."""
    set_retention(session, model, pinned=True, force=force)


def set_retention(session: Session, model: str, *, pinned: bool, force: bool) -> None:
    """Set spec.retention of the cache that an argument names."""
    client = session.client()
    snapshot = session.snapshot(client)
    try:
        name = cache_of(snapshot, model, session.namespace)
    except UnknownNameError as error:
        raise click.ClickException(str(error)) from None
    wanted = retention_apply(snapshot.cache_by_name[name], pinned=pinned)
    kind = NAMESPACE_CACHES if name[0] else CACHES
    try:
        client.request(
            "PATCH",
            kind.path(name[1], name[0]),
            doing=f"changing {kind.name} {title(name)}",
            body=wanted,
            query={"fieldManager": MANAGER, "force": "true" if force else ""},
            content_type=APPLY,
        )
    except ApiError as error:
        raise click.ClickException(_refusal(error)) from None
    if session.as_json:
        output.show_json({"model": title(name), "retention": wanted["spec"]["retention"]})
    else:
        output.echo(
            f"{title(name)} is pinned: no node evicts it"
            if pinned
            else f"{title(name)} may be evicted again"
        )


def _refusal(error: ApiError) -> str:
    """What to do about a refused change."""
    if isinstance(error, ConflictError):
        return (
            f"{error}; another field manager owns spec.retention: change it where the cache is "
            "managed, or take the field over with --force"
        )
    if isinstance(error, ForbiddenError):
        return (
            f"{error}; pin and unpin need the right to patch the cache, and a cache of a namespace "
            "may be pinned only where a policy allows it"
        )
    return str(error)
