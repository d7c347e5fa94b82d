"""Runs the page of a cluster: its reader and its server."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy.kubectl.follow import Follower
from deploy.kubectl.ui.explaining import Explaining
from deploy.kubectl.ui.feed import Feed
from deploy.kubectl.ui.server import Server
from deploy.kubectl.ui.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.kube.client import KubeClient


@contextmanager
def running(
    client: KubeClient, cluster: str, *, namespace: str = "", port: int = 0
) -> Iterator[Server]:
    """Read the cluster once, then serve the page until the end of the context.

    cluster: its name in the page. Raises OSError if the port cannot be used, and as
    `deploy.kubectl.snapshot.read`.
    """
    feed = Feed(cluster)
    server = Server(feed, Explaining(client, feed).explain, port)
    try:
        watching = Watching(client, Follower(client, namespace), feed, cluster)
    except BaseException:
        server.server_close()
        raise
    watching.start()
    server.start()
    try:
        yield server
    finally:
        watching.stop()
        server.stop()
