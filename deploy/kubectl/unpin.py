"""`kubectl localmodel unpin`: let a model be evicted again."""

from __future__ import annotations

import click

from deploy.kubectl.completion import complete_models
from deploy.kubectl.pin import set_retention
from deploy.kubectl.session import Command, Session, pass_session


@click.command(
    "unpin", cls=Command, help="Set spec.retention of MODEL to Evictable: see the command pin."
)
@click.argument("model", shell_complete=complete_models)
@click.option("--force", is_flag=True, help="Take spec.retention over from its field manager.")
@pass_session
def command(session: Session, model: str, *, force: bool) -> None:
    """Unpin a model."""
    set_retention(session, model, pinned=False, force=force)
