"""One download by a peer that is a Python library, measured after its imports.

The program runs in the peers' own environment, so it imports no module of localmodel.
Usage: PEER JOB, where JOB is a JSON file. A line on stdin starts the download.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Job = dict[str, Any]


def hf_transfer(job: Job) -> Callable[[], None]:
    """hf_transfer: one file after the other, as in a snapshot."""
    library = importlib.import_module("hf_transfer")

    def download() -> None:
        for url, target in zip(job["urls"], job["targets"], strict=True):
            library.download(
                url=url, filename=target, max_files=int(job["options"][0]), chunk_size=10 << 20
            )

    return download


def boto3(job: Job) -> Callable[[], None]:
    """boto3, with a number of connections and a part size in MiB, or with its defaults."""
    library = importlib.import_module("boto3")
    transfer = importlib.import_module("boto3.s3.transfer")
    client = library.client("s3", endpoint_url=job["endpoint"])
    config = transfer.TransferConfig()
    if job["options"]:
        connections, part = map(int, job["options"])
        config = transfer.TransferConfig(
            multipart_chunksize=part << 20, max_concurrency=connections, io_chunksize=1 << 20
        )

    def download() -> None:
        for key, target in zip(job["keys"], job["targets"], strict=True):
            client.download_file(job["bucket"], key, target, Config=config)

    return download


def kserve_storage(job: Job) -> Callable[[], None]:
    """The library of KServe's storage initializer."""
    library = importlib.import_module("kserve_storage")

    def download() -> None:
        library.Storage.download(job["uri"], job["folder"])

    return download


PEERS = {"hf_transfer": hf_transfer, "boto3": boto3, "kserve-storage": kserve_storage}


def cpu_seconds() -> float:
    """The CPU of this process, and of the children that it waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Import the peer, report ready, wait for a line, download, and report the times."""
    out = sys.stdout
    # Libraries may print to stdout.
    sys.stdout = sys.stderr
    job = json.loads(Path(sys.argv[2]).read_text())
    download = PEERS[sys.argv[1]](job)
    out.write('{"ready": true}\n')
    out.flush()
    sys.stdin.readline()
    began, used = time.monotonic(), cpu_seconds()
    download()
    seconds, used = time.monotonic() - began, cpu_seconds() - used
    out.write(json.dumps({"seconds": seconds, "cpu": used}) + "\n")
    out.flush()
    # The peak of the memory is read before this process ends.
    sys.stdin.readline()


if __name__ == "__main__":
    main()
