"""The addresses of the node and of the API server, where no tenant's model is fetched from."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable


def own_addresses(node: Iterable[str], api_server: str) -> frozenset[str]:
    """As text: those of the node that are named, and those of the API server with this URL.

    Those of this very host need not be named: connections find out. A name that cannot be resolved
    now has no address.
    """
    found = set(node)
    # The API server as each pod knows it, whichever way the agent takes.
    hosts = {urlsplit(api_server).hostname or "", os.environ.get("KUBERNETES_SERVICE_HOST", "")}
    for host in hosts - {""}:
        try:
            answers = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
        except OSError:
            continue
        found |= {str(one[4][0]).partition("%")[0] for one in answers}
    return frozenset(found)
