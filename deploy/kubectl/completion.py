"""Completion of arguments: names of models and nodes. A failure completes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.kubectl.session import Session

if TYPE_CHECKING:
    import click

# A shell waits for the answer.
_SECONDS = 2.0


def complete_models(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """The caches whose name, or namespace/name, begins so."""
    from deploy.kube.kinds import CACHES, NAMESPACE_CACHES  # noqa: PLC0415

    session = context.ensure_object(Session)
    titles = [] if session.namespace else _names(session, CACHES.path())
    found = _names(session, NAMESPACE_CACHES.path(namespace=session.namespace))
    return [one for one in (*titles, *found) if one.startswith(incomplete)]


def complete_nodes(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """The LocalModelNodes whose name begins so."""
    from deploy.kube.kinds import LOCAL_MODEL_NODES  # noqa: PLC0415

    names = _names(context.ensure_object(Session), LOCAL_MODEL_NODES.path())
    return [one for one in names if one.startswith(incomplete)]


def _names(session: Session, path: str) -> list[str]:
    """The names of all objects of a path, by metadata alone."""
    import click  # noqa: PLC0415

    from deploy.kube import meta  # noqa: PLC0415
    from deploy.kube.errors import ApiError  # noqa: PLC0415
    from deploy.kubectl.names import title  # noqa: PLC0415

    try:
        found = session.client().metadata(path, seconds=_SECONDS)
    except (ApiError, click.ClickException):
        return []
    named = not session.namespace
    return sorted(title((meta.namespace(one) if named else "", meta.name(one))) for one in found)
