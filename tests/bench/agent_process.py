"""The agent of the benchmark: the parts of an agent that download, in a long-running process.

A job is a line of JSON on stdin: the URIs of models to download in parallel, or `remove`.
Usage: ROOT.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from agent.main import lean_imports
from agent.structs.hidden_modules import hidden
from tests.bench.rows import SYNCS, VERIFICATION
from tests.bench.running import status_bytes

# So that memory is as in an agent in a pod, which imports no logins of kubeconfigs.
with lean_imports(), hidden("google.auth"):
    import agent.commands.serve  # noqa: F401
    from agent.commands.assemble import own_credentials
    from agent.disk import writeback
    from agent.disk.digests import Digests
    from agent.disk.store import Store
    from agent.engine.engine import Engine
    from agent.engine.workers import DigestWorker
    from agent.jobs import allocator as agent_memory
    from agent.jobs.download import Download
    from agent.jobs.workers import Fetching
    from agent.sources import all_sources
    from agent.structs.credentials import Credentials
    from agent.structs.requests import Request
    from crds.keys import model_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.engine.job import FileJob


class _Agent:
    """The parts of the agent that download."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._store = Store(root)
        self._store.open()
        self._fetching = Fetching(all_sources(), Engine(), lambda _: own_credentials())

    def download(self, uris: list[str], settings: dict[str, str]) -> list[str]:
        """Download models in parallel. Returns their folders. Raises the first failure."""
        failures: list[BaseException] = []
        credentials = Credentials.of(settings) if settings else own_credentials()

        def one(uri: str) -> None:
            download = Download(
                Request(model_key(uri), uri, ()),
                sources=self._fetching.sources,
                store=self._store,
                engine=self._fetching.engine,
                credentials=lambda: credentials,
                cancelled=threading.Event(),
                report=lambda _: None,
            )
            try:
                download.run()
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=one, args=(uri,)) for uri in uris[1:]]
        for thread in threads:
            thread.start()
        one(uris[0])
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return [str(self._root / "models" / model_key(uri)) for uri in uris]

    def remove(self) -> None:
        """Delete all models."""
        for key in self._store.scan()[0]:
            self._store.remove(key)


@contextmanager
def _without(steps: list[str]) -> Iterator[None]:
    """Disable steps of a download that users cannot disable."""
    with ExitStack() as patches:
        if SYNCS in steps:
            for name in ("fsync", "fdatasync"):
                patches.enter_context(mock.patch.object(os, name, return_value=None))
            libc = SimpleNamespace(sync_file_range=lambda *_: 0, syncfs=lambda _: 0)
            patches.enter_context(mock.patch.object(writeback, "_LIBC", libc))
        if VERIFICATION in steps:
            patches.enter_context(mock.patch.object(Digests, "update", _skip_piece))
            patches.enter_context(mock.patch.object(Digests, "agree", new=True))
            patches.enter_context(mock.patch.object(DigestWorker, "_digest", _skip_file))
        yield


def _skip_piece(digests: Digests, piece: bytes) -> None:
    digests.position += len(piece)


def _skip_file(_worker: DigestWorker, file: FileJob) -> None:
    file.digests.position += file.undigested


def _answer(agent: _Agent, job: dict[str, Any]) -> dict[str, object]:
    if "remove" in job:
        agent.remove()
        return {}
    # Resets the peak of the memory.
    Path("/proc/self/clear_refs").write_text("5")
    with _without(job["without"]):
        began, used = time.monotonic(), time.process_time()
        folders = agent.download(job["uris"], job["settings"])
        agent_memory.give_back()
        seconds, used = time.monotonic() - began, time.process_time() - used
    return {
        "seconds": seconds,
        "cpu": used,
        "peak": status_bytes("VmHWM"),
        "resident": status_bytes("VmRSS"),
        "folders": folders,
    }


def main() -> None:
    """Answer jobs until the end of stdin."""
    agent_memory.tune()
    agent = _Agent(Path(sys.argv[1]))
    out = sys.stdout
    sys.stdout = sys.stderr
    out.write('{"ready": true}\n')
    out.flush()
    for line in sys.stdin:
        answer: dict[str, object]
        try:
            answer = _answer(agent, json.loads(line))
        except Exception as error:  # noqa: BLE001
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
