"""What one call of a hook costs, in a fresh process of any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from deploy.local import posix
from tests.bench.control import hook_process, hook_requests
from tests.bench.control.figures import Value
from tests.bench.running import BenchError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.control.figures import Sample
    from tests.bench.control.settings import Settings

GROUP_CPU = "one /nodegroups/sync, CPU"
GROUP_PEAK = "one /nodegroups/sync, peak memory"
GROUP_BYTES = "one /nodegroups/sync, its request"
NODE_CPU = "one /nodes/sync, CPU"
NODE_PEAK = "one /nodes/sync, peak memory"
_SECONDS = 900.0


def measure(checkout: Path, settings: Settings) -> Sample:
    """CPU and memory of one call of the two hooks that see most."""
    group = hook_requests.nodegroups_sync(settings.nodes, settings.models)
    group_cost = _cost(checkout, "/nodegroups/sync", group, settings.work)
    node = hook_requests.nodes_sync(settings.models)
    node_cost = _cost(checkout, "/nodes/sync", node, settings.work)
    return {
        GROUP_CPU: Value(group_cost["seconds"], "s"),
        GROUP_PEAK: Value(group_cost["peak"] / 1e6, "MB"),
        GROUP_BYTES: Value(group_cost["bytes"] / 1e6, "MB"),
        NODE_CPU: Value(node_cost["seconds"] * 1000, "ms"),
        NODE_PEAK: Value(node_cost["peak"] / 1e6, "MB"),
    }


def _cost(checkout: Path, path: str, request: dict[str, Any], work: Path) -> Any:
    file = work / "request.json"
    file.write_text(json.dumps(request))
    try:
        _call(checkout, hook_process.SETTLE, path, file)
        return _call(checkout, hook_process.MEASURE, path, file)
    finally:
        file.unlink()


def _call(checkout: Path, mode: str, path: str, file: Path) -> Any:
    # -P: this program's own folder is no place to import from.
    argv = [sys.executable, "-P", hook_process.__file__, mode, path, str(file)]
    done = subprocess.run(
        argv,
        cwd=checkout,
        env=posix.child_environment(os.environ),
        preexec_fn=posix.die_with_parent(),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise BenchError(f"{path} of {checkout}: {last}")
    return json.loads(done.stdout)
