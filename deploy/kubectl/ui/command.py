"""`kubectl localmodel ui`."""

from __future__ import annotations

import signal
import threading
import webbrowser
from typing import TYPE_CHECKING

import click

from deploy.kubectl.session import Command, pass_session

if TYPE_CHECKING:
    from deploy.kubectl.session import Session


@click.command(cls=Command)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Port on 127.0.0.1; any free one by default.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@pass_session
def command(session: Session, port: int, *, no_browser: bool) -> None:
    """Show the matrix of nodes and models in a browser, live.

    The page is on 127.0.0.1 and only reads. Its address has a token: whoever has the address can
    read what you can read of localmodel's objects and of Nodes, until the command ends. Stop it
    with Ctrl-C.
    """
    # Imported here, for the quick answers of --help and of the completion.
    from deploy.kubectl.ui.running import running  # noqa: PLC0415

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    client = session.client()
    cluster = session.context or client.server.partition("://")[2]
    try:
        with running(client, cluster, namespace=session.namespace, port=port) as server:
            click.echo(f"{server.url}\nCtrl-C stops it.")
            if not no_browser:
                webbrowser.open(server.one_time_url())
            stopped.wait()
    except OSError as error:
        raise click.ClickException(
            f"port {port} of 127.0.0.1 cannot be used: {error.strerror}; name another --port"
        ) from None
