"""A process that asks an origin what a model is, and says how much memory that took."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from agent.sources import all_sources
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError

MIB = 1 << 20
# Far more than it may take: the machine that runs the tests has to live on.
MOST = 1500 * MIB


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


def main(uri: str, settings: dict[str, str]) -> None:
    """Writes the kind of the failure, its message, and the memory that it took."""
    resource.setrlimit(resource.RLIMIT_DATA, (MOST, MOST))
    source = all_sources().of(uri, "")
    before = peak()
    try:
        said = f"Listed {len(source.resolve(uri, Credentials.of(settings), None).files)}"
    except DownloadError as error:
        said = f"{error.kind.value} {error.message}"
    except MemoryError:
        said = "MemoryError"
    sys.stdout.write(f"{said}\n{peak() - before}\n")


if __name__ == "__main__":
    main(sys.argv[1], dict(pair.split("=", 1) for pair in sys.argv[2:]))
