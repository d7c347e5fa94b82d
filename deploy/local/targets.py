"""Where Prometheus finds the metrics of a local cluster: a file for its `file_sd_configs`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from deploy.local.process import write_atomically

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

AGENT_JOB = "localmodel-agent"
HOOKS_JOB = "localmodel-hooks"


def add(file: Path, job: str, address: str, node: str = "") -> None:
    """Add an endpoint, such as `127.0.0.1:8081`; it replaces that of the same job and node."""
    labels = {"job": job, "node": node} if node else {"job": job}
    kept = [group for group in _read(file) if group["labels"] != labels]
    _write(file, [*kept, {"targets": [address], "labels": labels}])


def remove(file: Path, node: str) -> None:
    """Remove the endpoint of a node's agent, if there is one."""
    _write(file, [group for group in _read(file) if group["labels"].get("node") != node])


def ports(file: Path) -> set[int]:
    """The ports of all endpoints, also of programs that do not listen yet."""
    addresses = (address for group in _read(file) for address in group["targets"])
    return {int(address.rpartition(":")[2]) for address in addresses}


def _read(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return found


def _write(file: Path, groups: list[dict[str, Any]]) -> None:
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, json.dumps(groups, indent=1) + "\n")
