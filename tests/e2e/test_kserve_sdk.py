"""KServe's own Python SDK, unchanged, on the local cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.kube.kinds import CACHES, GROUPS
from deploy.local import build
from deploy.local.posix import child_environment

if TYPE_CHECKING:
    from tests.e2e.kserve import KServeNodesWorld

PROGRAM = Path(__file__).with_name("sdk_program.py")


def test_kserves_sdk_makes_waits_for_reads_and_deletes(kserve_nodes: KServeNodesWorld) -> None:
    content = os.urandom(10_001)
    uri = kserve_nodes.http.put("sdk.bin", content)
    kserve_nodes.space("sdk")
    nodes = ["node-1", "node-2"]
    job = {"name": "sdk", "nodes": nodes, "namespace": "sdk", "uri": uri}
    done = subprocess.run(
        # Without this environment's packages, and what lies beside it: the SDK has its own.
        [
            *(sys.executable, "-S", "-P", str(PROGRAM)),
            *(str(kserve_nodes.cluster.kubeconfig), json.dumps(job)),
        ],
        env=child_environment(os.environ) | {"PYTHONPATH": str(build.ensure_kserve_sdk())},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    # It waits on nodeStatus alone: so what that says must be true on the disks.
    for node in nodes:
        assert (kserve_nodes.copy(node, uri) / "sdk.bin").read_bytes() == content
    for kind in ("cache", "namespaceCache"):
        assert found[kind]["status"]["nodeStatus"] == dict.fromkeys(nodes, "NodeDownloaded")
        assert found[kind]["spec"]["sourceModelUri"] == uri
        assert found[kind]["spec"]["nodeGroups"] == ["sdk"]
    assert found["group"]["spec"]["storageLimit"] == "1Gi"
    assert found["elsewhere"] is False
    kserve_nodes.until(
        lambda: not kserve_nodes.find(CACHES, "sdk") and not kserve_nodes.find(GROUPS, "sdk"),
        "what it deleted to be gone",
    )
