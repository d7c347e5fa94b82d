"""Runs `localmodel-takeover` on a local cluster, with exactly the rights of its Job."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.local import identities, manifests
from deploy.local.layout import CHECKOUT
from deploy.local.users import ServiceAccount, kubeconfig

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.local.cluster import Cluster

# The command's exit codes (docs/kserve.md).
OK = 0
A_PERSON_FIRST = 3
NOTHING_LEFT = "Nothing is left to do."
ACCOUNT = ServiceAccount("kserve", "localmodel-takeover")


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of a run."""

    code: int
    said: str


@dataclass(frozen=True)
class Takeover:
    """The command, as the ServiceAccount of its Job."""

    kubeconfig: Path

    @classmethod
    def on(cls, cluster: Cluster, folder: Path) -> Takeover:
        """Grant the shipped rights on a cluster, and get a token for them."""
        files = [
            CHECKOUT / "deploy/base/namespace.yaml",
            CHECKOUT / "deploy/overlays/kserve/takeover/rbac.yaml",
        ]
        manifests.apply_all(cluster.api, manifests.read(files, hooks_url=""))
        path = folder / "takeover.kubeconfig"
        path.write_text(
            kubeconfig(
                server=cluster.api.server,
                authority=cluster.layout.certificate,
                user="takeover",
                token=identities.token(cluster.api, ACCOUNT),
            )
        )
        return cls(path)

    def run(self, *flags: str) -> Ran:
        """Run the command to its end."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "deploy.takeover.main"),
                *(f"--kubeconfig={self.kubeconfig}", "--timeout=20", *flags),
            ],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Ran(done.returncode, done.stdout + done.stderr)
