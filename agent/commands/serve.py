"""`localmodel-agent run` in a cluster: makes the disk match the node's LocalModelNode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cluster.connection import ConfigError, connect
from agent.cluster.core_api import CoreApi
from agent.cluster.event_writer import NODE, EventWriter
from agent.cluster.kubelet_config import KubeletConfig
from agent.cluster.pod_watch import PodWatch
from agent.cluster.pod_writer import PodWriter
from agent.cluster.report import NodeReport
from agent.cluster.startup_taint import NodeTaint
from agent.commands import logs
from agent.commands.assemble import (
    loop_options,
    make_fetching,
    own_credentials,
    run_loop,
)
from agent.commands.exit_codes import OK, USAGE
from agent.commands.kubelet_thresholds import follow_kubelet
from agent.commands.limits_file import LimitsError
from agent.commands.listening import BindError
from agent.commands.observation import observe
from agent.commands.own_addresses import own_addresses
from agent.commands.peer_flags import cluster_peers
from agent.commands.process import Stop, fail, leave
from agent.control.loop import Loop
from agent.control.startup_taint import StartupTaint
from agent.credentials.resolver import CredentialResolver
from agent.credentials.secret_reader import SecretReader
from agent.disk.kubelet_disk import KubeletDisk
from agent.disk.root import StoreError
from agent.disk.store import Store
from agent.disk.watch import open_store
from agent.jobs import allocator
from agent.structs.counts import NO_COUNTS
from agent.structs.kubelet import DEFAULT_THRESHOLDS
from agent.structs.log import log
from crds.version import __version__

if TYPE_CHECKING:
    import argparse


def serve(options: argparse.Namespace) -> int:
    """Run the loop until a signal, and end the process. Returns USAGE if it cannot start."""
    allocator.tune()
    logs.configure(options.log_format)
    try:
        loop = _make_loop(options)
    except (BindError, ConfigError, LimitsError, StoreError) as error:
        fail(str(error))
        return USAGE
    stop = Stop()
    log.info("Agent started", node=options.node_name, root=str(options.root), version=__version__)
    run_loop(loop, stop)
    log.info("Agent stopped")
    return leave(OK)


def _make_loop(options: argparse.Namespace) -> Loop:
    kubelet = KubeletDisk(
        options.kubelet_thresholds or DEFAULT_THRESHOLDS, options.kubelet_file_systems
    )
    store = Store(
        options.root, options.disk_size, makes_views=options.volumes == "model", kubelet=kubelet
    )
    observation = observe(options, store)
    counts = observation.counts if observation else NO_COUNTS
    client = connect(options.kubeconfig, requested=counts.requested)
    own = own_credentials()
    resolver = CredentialResolver(
        SecretReader(CoreApi(client)),
        options.credentials_namespace,
        options.unlisted_credentials,
        own,
    )
    peers = cluster_peers(options, store, counts)
    fetching = make_fetching(
        options,
        file_directories=options.allow_file_dir,
        own=own,
        credentials=resolver.resolve,
        own_addresses=own_addresses(options.node_address, client.configuration.host),
        peers=peers.group if peers else None,
    )
    if options.kubelet_configz is not None:
        follow_kubelet(KubeletConfig(options.kubelet_configz, client), kubelet)
    open_store(store)
    if peers is not None:
        peers.start()
    startup_taint = None
    if options.startup_taint_priority is not None:
        taint = NodeTaint(options.node_name, client, EventWriter(options.node_name, client, NODE))
        startup_taint = StartupTaint(taint, options.startup_taint_priority)
    loop = Loop(
        NodeReport(options.node_name, client),
        store,
        fetching,
        loop_options(options, counts),
        pods=PodWatch(options.node_name, client),
        events=EventWriter(options.node_name, client),
        startup_taint=startup_taint,
        pod_sink=PodWriter(options.node_name, client),
        peers=peers,
    )
    if observation is not None:
        observation.follow(loop)
    return loop
