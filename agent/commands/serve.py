"""`localmodel-agent run` in a cluster: the disk as the node's LocalModelNode has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from localmodel.agent.cluster.event_writer import EventWriter
from localmodel.agent.cluster.pod_watch import PodWatch
from localmodel.agent.cluster.report import ConfigError, NodeReport, connect
from localmodel.agent.commands import logs
from localmodel.agent.commands.assemble import attend, make_fetching, own_credentials
from localmodel.agent.commands.exit_codes import OK, USAGE
from localmodel.agent.commands.limits_file import LimitsError
from localmodel.agent.commands.own_addresses import own_addresses
from localmodel.agent.commands.process import Stop, fail, leave
from localmodel.agent.control.loop import Loop
from localmodel.agent.credentials.resolver import CredentialResolver
from localmodel.agent.credentials.secret_reader import SecretReader
from localmodel.agent.disk.root import StoreError
from localmodel.agent.disk.store import Store
from localmodel.agent.disk.watch import open_store
from localmodel.agent.jobs import memory
from localmodel.agent.structs.options import Options

if TYPE_CHECKING:
    import argparse

log = structlog.get_logger(__name__)


def serve(options: argparse.Namespace) -> int:
    """Work until a signal, and end the process. Returns 2 if it cannot start."""
    memory.tune()
    logs.configure(options.log_format)
    try:
        loop = _make_loop(options)
    except (ConfigError, LimitsError, StoreError) as error:
        fail(str(error))
        return USAGE
    stop = Stop()
    log.info("Agent started", node=options.node_name, root=str(options.root))
    attend(loop, stop)
    log.info("Agent stopped")
    return leave(OK)


def _make_loop(options: argparse.Namespace) -> Loop:
    client = connect(options.kubeconfig)
    own = own_credentials()
    resolver = CredentialResolver(
        SecretReader(client), options.credentials_namespace, options.unlisted_credentials, own
    )
    fetching = make_fetching(
        options,
        file_directories=options.allow_file_dir,
        own=own,
        credentials=resolver.resolve,
        own_addresses=own_addresses(options.node_address, client.configuration.host),
    )
    store = Store(options.root, options.disk_size)
    open_store(store)
    return Loop(
        NodeReport(options.node_name, client),
        store,
        fetching,
        loop_options(options),
        pods=PodWatch(options.node_name, client),
        events=EventWriter(options.node_name, client),
    )


def loop_options(options: argparse.Namespace) -> Options:
    """How the loop behaves, by the flags."""
    return Options(
        grace=options.grace_seconds,
        progress=options.progress_seconds,
        max_downloads=options.max_downloads,
        scrub_bytes_per_second=options.scrub_bytes_per_second or None,
        scrub_interval=options.scrub_interval_seconds,
        recheck=options.access_recheck_seconds,
    )
