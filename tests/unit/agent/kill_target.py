"""Forks one download after the other, so that each begins at once: `python -m ... ROOT URI`.

For each line on stdin, a child downloads; its process number is printed, and later its exit code.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from agent.commands.assemble import own_credentials
from agent.disk.store import Store
from agent.engine.engine import Engine
from agent.jobs.download import Download
from agent.sources import Sources
from agent.sources.http import HttpSource
from agent.sources.transport import Transports
from agent.structs.requests import Request
from crds.keys import model_key


def download(root: Path, uri: str) -> None:
    store = Store(root)
    store.open()
    store.recover()
    Download(
        Request(model_key(uri), uri, ()),
        sources=Sources({"http": HttpSource(Transports(max_connections=64))}),
        store=store,
        engine=Engine(),
        credentials=own_credentials,
        cancelled=threading.Event(),
        report=lambda _: None,
    ).run()


def tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main() -> None:
    root, uri = Path(sys.argv[1]), sys.argv[2]
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                download(root, uri)
                code = 0
            finally:
                os._exit(code)
        tell(child)
        tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
