"""KServe's contract, line by line: the section `localModel` of its ConfigMap (docs/kserve.md).

disableVolumeManagement, the only key that localmodel heeds, is in test_kserve_services.py.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

from agent.structs.credentials import DEFAULT_NAMESPACE
from deploy.kube.kinds import CLAIMS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.kserve import KServeNodesWorld

ELSEWHERE = "other-jobs"


def test_the_other_keys_change_nothing(kserve_nodes: KServeNodesWorld, tmp_path: Path) -> None:
    """Neither what was made before, nor what is made after."""
    (tmp_path / "weights").write_bytes(os.urandom(1001))
    uris = {name: kserve_nodes.s3.upload(tmp_path, name) for name in ("keys-a", "keys-b")}
    kserve_nodes.reader("keys")
    kserve_nodes.space(ELSEWHERE)
    kserve_nodes.kserve_group("keys", "node-3")
    _serve(kserve_nodes, "keys-a", uris["keys-a"])
    claim = kserve_nodes.wait_bound("keys-a", "keys-a-keys")
    former = kserve_nodes.configure(
        json.dumps(
            {
                "enabled": False,
                "jobNamespace": ELSEWHERE,
                "fsGroup": 4321,
                "reconcilationFrequencyInSecs": 86400,
                "defaultJobImage": "example.com/none:1",
                "jobTTLSecondsAfterFinished": 1,
            }
        )
    )
    try:
        # enabled, which is for KServe's service webhooks: what they have labelled keeps its claim.
        # jobNamespace: secrets are still those of the agents' flag.
        # reconcilationFrequencyInSecs: the agents look after their files at once.
        _serve(kserve_nodes, "keys-b", uris["keys-b"])
        kserve_nodes.wait_bound("keys-b", "keys-b-keys")
        found = kserve_nodes.api.get(CLAIMS, "keys-a-keys", "keys-a")
        assert found["metadata"]["uid"] == claim["metadata"]["uid"]
        assert not kserve_nodes.api.list(CLAIMS, ELSEWHERE)
        assert not kserve_nodes.api.list(CLAIMS, DEFAULT_NAMESPACE)
        # fsGroup: everybody may read the files, so that no pod needs a group for it.
        folder = kserve_nodes.copy("node-3", uris["keys-b"])
        assert (folder / "weights").stat().st_mode & stat.S_IROTH
        assert folder.stat().st_mode & stat.S_IXOTH
    finally:
        kserve_nodes.configure(former)


def _serve(kserve_nodes: KServeNodesWorld, name: str, uri: str) -> None:
    """A model on its node, and a service that uses it."""
    kserve_nodes.kserve_cache(name, "keys", sourceModelUri=uri, serviceAccountName="keys")
    kserve_nodes.wait_ready(name, 1)
    kserve_nodes.service(name, "chat", name, nodegroup="keys")
