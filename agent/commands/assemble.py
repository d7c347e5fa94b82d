"""Puts together what all commands work with: limits, engine, sources, and the running loop."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from localmodel.agent.commands.limits_file import follow, read_limits
from localmodel.agent.commands.process import STOP_SECONDS, begin_anew
from localmodel.agent.engine.engine import Engine
from localmodel.agent.engine.limits import Limits
from localmodel.agent.jobs.workers import Fetching
from localmodel.agent.sources import all_sources
from localmodel.agent.sources.addresses import DEFAULT_RULES, Rules, rules_for_namespaces
from localmodel.agent.structs.credentials import Credentials

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from localmodel.agent.commands.process import Stop
    from localmodel.agent.control.loop import Loop
    from localmodel.agent.structs.requests import Requester


def make_engine(options: argparse.Namespace, limits_file: Path | None = None) -> Engine:
    """The engine, with the limits of the flags and of the file. Raises LimitsError."""
    defaults = Limits(options.connections_per_origin, options.bytes_per_second)
    if limits_file is None:
        return Engine(defaults)
    engine = Engine(read_limits(limits_file, defaults))
    follow(limits_file, engine.set_limits, defaults)
    return engine


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
) -> Fetching:
    """What the loop's downloads are made with. Raises LimitsError.

    `own` are the agent's credentials, which all requesters have without `credentials`.
    `own_addresses` are those of the node and the API server.
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
    return Fetching(sources, engine, credentials or (lambda _: own))


def attend(loop: Loop, stop: Stop) -> None:
    """Run the loop until it is to end. Where it must begin anew, the process does.

    It has a thread of its own, so that a signal need not wait for a call to return.
    """
    is_over = False

    def run() -> None:
        nonlocal is_over
        loop.run()
        is_over = not stop.is_set
        stop.event.set()

    thread = threading.Thread(target=run, name="loop", daemon=True)
    thread.start()
    stop.event.wait()
    loop.stop()
    thread.join(STOP_SECONDS)
    if is_over and loop.begins_anew:
        begin_anew()
