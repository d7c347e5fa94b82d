"""Makes the sockets that the agent's servers listen on."""

from __future__ import annotations

import socket


class BindError(Exception):
    """The agent cannot listen on an address. The message says why, and what to do."""


def listen(address: tuple[str, int], flag: str, *, backlog: int) -> socket.socket:
    """A socket that listens on the address that a flag names. Raises BindError.

    An empty host means all addresses, port 0 a free port.
    """
    host, port = address
    try:
        if host or not socket.has_dualstack_ipv6():
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server(address, family=family, backlog=backlog)
        return socket.create_server(
            address, family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog
        )
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BindError(
            f"cannot listen on {host}:{port}: {reason}; choose another {flag}"
        ) from None
