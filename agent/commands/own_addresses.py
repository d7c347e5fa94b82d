"""The addresses of the node and of the API server, from which namespace caches may not download."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable


def own_addresses(node: Iterable[str], api_server: str) -> frozenset[str]:
    """The addresses in `node` and those of the API server with this URL, as text.

    Addresses of the host that the agent runs on need not be named: the sources refuse them when
    they connect. A name that cannot be resolved now contributes no address.
    """
    found = set(node)
    # Pods reach the API server by its Service, also where the agent uses another address.
    hosts = {urlsplit(api_server).hostname or "", os.environ.get("KUBERNETES_SERVICE_HOST", "")}
    for host in hosts - {""}:
        try:
            answers = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
        except OSError:
            continue
        found |= {str(answer[4][0]).partition("%")[0] for answer in answers}
    return frozenset(found)
