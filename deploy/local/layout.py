"""Where things are: the checkout, what is built from it, and one local cluster's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = CHECKOUT / ".build"
KUBE = BUILD / "bin" / "kube"
KUBECTL = BUILD / "bin" / "kubectl"
VERSITYGW = BUILD / "bin" / "versitygw"
FAKE_GCS = BUILD / "bin" / "fake-gcs-server"
AZURITE = BUILD / "azurite"
VENV = CHECKOUT / ".venv"


@dataclass(frozen=True)
class Layout:
    """The paths of one local cluster, all under one absolute folder."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held while somebody changes the cluster; also marks the folder as a cluster's."""
        return self.root / ".lock"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the administrator."""
        return self.root / "kubeconfig"

    @property
    def nodes(self) -> Path:
        """A folder for each node: its disk."""
        return self.root / "nodes"

    @property
    def logs(self) -> Path:
        """A log file for each process."""
        return self.root / "logs"

    @property
    def etcd(self) -> Path:
        """The cluster's state."""
        return self.root / "etcd"

    @property
    def metrics(self) -> Path:
        """What the hooks' workers count, which they do not clean up when they are killed."""
        return self.run / "metrics"

    @property
    def run(self) -> Path:
        """What is only of use while the cluster runs."""
        return self.root / "run"

    @property
    def processes(self) -> Path:
        """The processes that shall run, a file for each."""
        return self.run / "processes"

    @property
    def stopped(self) -> Path:
        """Processes that were taken out of `processes` for a while."""
        return self.run / "stopped"

    @property
    def keep(self) -> Path:
        """While this file exists, the supervisor outlives its owner."""
        return self.run / "keep"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor while it lives."""
        return self.run / "supervisor.lock"

    @property
    def guard_lock(self) -> Path:
        """Held by the supervisor's guard while it lives."""
        return self.run / "guard.lock"

    @property
    def supervisor_pid(self) -> Path:
        """Written when the supervisor is ready."""
        return self.run / "supervisor.pid"

    @property
    def state(self) -> Path:
        """Ports and options of the running cluster."""
        return self.run / "cluster.json"

    @property
    def certificates(self) -> Path:
        """Where the API server writes its certificate and key."""
        return self.run / "certificates"

    @property
    def certificate(self) -> Path:
        """The API server's certificate with its authority."""
        return self.certificates / "apiserver.crt"

    @property
    def service_account_key(self) -> Path:
        """Signs service account tokens."""
        return self.run / "service-account.key"

    @property
    def tokens(self) -> Path:
        """The API server's list of users."""
        return self.run / "tokens.csv"

    def pid(self, name: str) -> Path:
        """File with the process id of a running process."""
        return self.run / f"{name}.pid"

    def ended(self, name: str) -> Path:
        """File that tells how a process ended last, and how often it did."""
        return self.run / f"{name}.ended"

    def log(self, name: str) -> Path:
        """Log file of a process."""
        return self.logs / f"{name}.log"

    def disk(self, node: str) -> Path:
        """Disk of a node."""
        return self.nodes / node

    def user_kubeconfig(self, user: str) -> Path:
        """Kubeconfig of one of the cluster's own users."""
        return self.run / f"{user}.kubeconfig"
