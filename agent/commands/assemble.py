"""Makes the parts that all commands share: limits, engine and sources; runs the loop."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from agent.commands.process import STOP_SECONDS, restart_process
from agent.engine.engine import Engine
from agent.engine.limits import Limits
from agent.jobs.workers import Fetching
from agent.sources import all_sources
from agent.sources.addresses import DEFAULT_RULES, Rules, rules_for_namespaces
from agent.structs.credentials import Credentials
from agent.structs.options import Options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from agent.commands.process import Stop
    from agent.control.loop import Loop
    from agent.structs.counts import Counts
    from agent.structs.exchange import PeerGroup
    from agent.structs.requests import Requester


def make_engine(options: argparse.Namespace, limits_file: Path | None = None) -> Engine:
    """An engine that follows the limits file; flags are its defaults. Raises LimitsError."""
    defaults = Limits(options.connections_per_origin, options.bytes_per_second)
    if limits_file is None:
        return Engine(defaults)
    from agent.commands.limits_file import follow, read_limits  # noqa: PLC0415 - it imports YAML

    engine = Engine(read_limits(limits_file, defaults))
    follow(limits_file, engine.set_limits, defaults)
    return engine


def loop_options(options: argparse.Namespace, counts: Counts) -> Options:
    """How the loop behaves, by the flags."""
    return Options(
        grace=options.grace_seconds,
        progress=options.progress_seconds,
        max_downloads=options.max_downloads,
        scrub_bytes_per_second=options.scrub_bytes_per_second or None,
        scrub_interval=options.scrub_interval_seconds,
        recheck=options.access_recheck_seconds,
        counts=counts,
    )


def own_credentials() -> Credentials:
    """The agent's own credentials: its environment. Nothing else makes credentials of it."""
    return Credentials.of(os.environ, own=True)


def make_fetching(
    options: argparse.Namespace,
    *,
    file_directories: Sequence[Path],
    own: Credentials,
    credentials: Callable[[Requester], Credentials] | None = None,
    own_addresses: Collection[str] = (),
    peers: PeerGroup | None = None,
) -> Fetching:
    """Sources, engine and credentials for the loop's downloads. Raises LimitsError.

    `own` are the agent's credentials, which all requesters get without `credentials`.
    `own_addresses` are those of the node and the API server, as text. `peers` is where downloads
    find other agents.
    """
    refused = tuple(options.refuse_network)
    sources = all_sources(
        file_directories=file_directories,
        pvc_directories=dict(options.allow_pvc),
        rules=Rules(refused=(*DEFAULT_RULES.refused, *refused)),
        namespace_rules=rules_for_namespaces(refused, own_addresses, options.allow_network),
        hub=own.get("HF_ENDPOINT"),
    )
    engine = make_engine(options, options.limits_file)
    return Fetching(sources, engine, credentials or (lambda _: own), peers)


def run_loop(loop: Loop, stop: Stop) -> None:
    """Run the loop until `stop` is set; replace the process if the loop asks for a restart.

    The loop has a thread of its own, so that a signal need not wait for a call to return.
    """
    has_returned = False

    def run() -> None:
        nonlocal has_returned
        loop.run()
        has_returned = not stop.is_set
        stop.event.set()

    thread = threading.Thread(target=run, name="loop", daemon=True)
    thread.start()
    stop.event.wait()
    loop.stop()
    thread.join(STOP_SECONDS)
    if has_returned and loop.begins_anew:
        restart_process()
