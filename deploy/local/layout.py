"""Paths of the checkout, of the built programs, and of the files of one local cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = CHECKOUT / ".build"
KUBE = BUILD / "bin" / "kube"
KUBECTL = BUILD / "bin" / "kubectl"
VERSITYGW = BUILD / "bin" / "versitygw"
FAKE_GCS = BUILD / "bin" / "fake-gcs-server"
HELM = BUILD / "bin" / "helm"
AZURITE = BUILD / "azurite"
VENV = CHECKOUT / ".venv"


@dataclass(frozen=True)
class Layout:
    """The paths of one local cluster, all under one absolute folder."""

    root: Path

    @property
    def lock(self) -> Path:
        """Lock of the command that changes the cluster; marks the folder as a cluster's."""
        return self.root / ".lock"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the administrator."""
        return self.root / "kubeconfig"

    @property
    def nodes(self) -> Path:
        """Folder with a folder for each node: the node's disk."""
        return self.root / "nodes"

    @property
    def machines(self) -> Path:
        """Folder with a folder for each real node: its images, containers and settings."""
        return self.root / "machines"

    @property
    def images(self) -> Path:
        """Folder with the archives of the images of real nodes."""
        return self.root / "images"

    @property
    def logs(self) -> Path:
        """Folder with a log file for each process."""
        return self.root / "logs"

    @property
    def etcd(self) -> Path:
        """Data of etcd."""
        return self.root / "etcd"

    @property
    def metrics(self) -> Path:
        """Metrics of the hooks' workers, which a killed worker leaves behind."""
        return self.run / "metrics"

    @property
    def targets(self) -> Path:
        """Where Prometheus finds the metrics of agents and hooks."""
        return self.root / "prometheus" / "targets.json"

    @property
    def run(self) -> Path:
        """Folder for files of a running cluster."""
        return self.root / "run"

    @property
    def processes(self) -> Path:
        """Folder with a file for each process that the supervisor keeps running."""
        return self.run / "processes"

    @property
    def stopped(self) -> Path:
        """Folder for the files of stopped processes, moved here from `processes`."""
        return self.run / "stopped"

    @property
    def keep(self) -> Path:
        """While this file exists, the supervisor outlives its owner."""
        return self.run / "keep"

    @property
    def supervisor_lock(self) -> Path:
        """Lock of the supervisor while it runs."""
        return self.run / "supervisor.lock"

    @property
    def guard_lock(self) -> Path:
        """Lock of the supervisor's guard while it runs."""
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
        """Folder to which the API server writes its certificate and key."""
        return self.run / "certificates"

    @property
    def certificate(self) -> Path:
        """Certificate of the API server, with its CA."""
        return self.certificates / "apiserver.crt"

    @property
    def service_account_key(self) -> Path:
        """Key that signs service account tokens."""
        return self.run / "service-account.key"

    @property
    def kubelet_client(self) -> Path:
        """Key and certificate by which kubelets know the API server."""
        return self.run / "kubelet-client.pem"

    @property
    def tokens(self) -> Path:
        """Token file of the API server, with the administrator's token."""
        return self.run / "tokens.csv"

    @property
    def audit_policy(self) -> Path:
        """Which requests the API server writes to the audit log."""
        return self.run / "audit-policy.yaml"

    @property
    def audit_log(self) -> Path:
        """The requests of the product's own users."""
        return self.log("audit")

    def pid(self, name: str) -> Path:
        """File with the process id of a running process."""
        return self.run / f"{name}.pid"

    def ended(self, name: str) -> Path:
        """File with the last exit of a process and the number of its exits."""
        return self.run / f"{name}.ended"

    def log(self, name: str) -> Path:
        """Log file of a process."""
        return self.logs / f"{name}.log"

    def disk(self, node: str) -> Path:
        """Disk of a node."""
        return self.nodes / node

    def machine(self, node: str) -> Path:
        """Folder of a real node, apart from its disk."""
        return self.machines / node

    def user_kubeconfig(self, user: str) -> Path:
        """Kubeconfig of one of the cluster's own users."""
        return self.run / f"{user}.kubeconfig"
