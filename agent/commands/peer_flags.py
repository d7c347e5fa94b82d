"""The exchange of models with other agents: what it needs is imported if flags ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

    from agent.commands.peers import ClusterPeers, NamedPeers
    from agent.disk.store import Store
    from agent.peers.directory import Directory
    from agent.structs.counts import Counts


def cluster_peers(options: argparse.Namespace, store: Store, counts: Counts) -> ClusterPeers | None:
    """The exchange of an agent in a cluster; None if it has none. Raises BindError."""
    if options.peer_bind_address is None:
        return None
    from agent.commands.peers import ClusterPeers  # noqa: PLC0415 - it imports cryptography

    return ClusterPeers(options, store, counts)


def named_peers(options: argparse.Namespace, store: Store, counts: Counts) -> NamedPeers | None:
    """The exchange of an agent without Kubernetes; None if it has none. Raises BindError."""
    if not options.peer and options.peer_bind_address is None:
        return None
    from agent.commands.peers import NamedPeers  # noqa: PLC0415 - it imports cryptography

    return NamedPeers(options, store, counts)


def asked_peers(addresses: Collection[str], store: Store) -> Directory | None:
    """The peers that are asked alone, as by `pull`; None if there are none."""
    if not addresses:
        return None
    from agent.commands.peers import asked_directory  # noqa: PLC0415 - it imports cryptography

    return asked_directory(addresses, store)
