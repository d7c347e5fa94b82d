"""The CPU time that serving costs an agent, plain and by TLS."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

from agent.peers.client import Credentials, PeerClient
from agent.peers.identity import Identity
from agent.structs.exchange import Peer, grant_digest
from agent.structs.manifest import Grant
from deploy.local.layout import CHECKOUT
from tests.bench.peers.agents import cpu_seconds

if TYPE_CHECKING:
    from pathlib import Path

CONNECTIONS = 4
TIMES = 8
_RANGE = 16 << 20
_READ = 1 << 20
_PROCESS = (sys.executable, "-m", "tests.bench.peers.serving_process")


def serving_cost(folder: Path, *, tls: bool) -> float:
    """Core-seconds of the serving process for each GiB of a published file that a peer reads."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    identity = Identity()
    argv = [*_PROCESS, str(folder / "store"), identity.fingerprint if tls else ""]
    process = subprocess.Popen(
        argv, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        told: dict[str, Any] = json.loads(process.stdout.readline())
        size: int = told["size"]
        credentials = Credentials(
            identity.certificate, identity.client_context(), identity.introduction_context()
        )
        peer = Peer("serving", f"127.0.0.1:{told['port']}", told["fingerprint"])
        with closing(PeerClient(peer, credentials if tls else None)) as client:

            def read(start: int) -> None:
                end = min(start + _RANGE, size)
                key, grant = told["key"], grant_digest(Grant())
                with closing(client.range(key, grant, told["digest"], start, end)) as body:
                    while body.read(_READ):
                        pass

            # The first one introduces this process.
            read(0)
            before = cpu_seconds(process.pid)
            starts = [*range(0, size, _RANGE)] * TIMES
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                list(pool.map(read, starts))
            return (cpu_seconds(process.pid) - before) / (size * TIMES / (1 << 30))
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
