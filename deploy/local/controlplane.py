"""The control plane's processes: their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.local.layout import CHECKOUT, KUBE
from deploy.local.ports import LOOPBACK
from deploy.local.process import Process

if TYPE_CHECKING:
    from deploy.local.layout import Layout
    from deploy.local.ports import Ports

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"

# Nothing here runs pods, and a Node of the local cluster has no kubelet that renews its lease.
CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
)


def server_url(ports: Ports) -> str:
    """Where the API server listens."""
    return f"https://{LOOPBACK}:{ports.api}"


def etcd(layout: Layout, ports: Ports) -> Process:
    """The store. It does not sync to disk: nothing here outlives the machine."""
    client = f"http://{LOOPBACK}:{ports.etcd}"
    peer = f"http://{LOOPBACK}:{ports.etcd_peer}"
    return _process(
        ETCD,
        "--name=local",
        f"--data-dir={layout.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        order=0,
    )


def api_server(layout: Layout, ports: Ports) -> Process:
    """The API server. Nodes are tainted by nobody, since nobody would untaint them."""
    return _process(
        API_SERVER,
        f"--etcd-servers=http://{LOOPBACK}:{ports.etcd}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--secure-port={ports.api}",
        f"--cert-dir={layout.certificates}",
        f"--token-auth-file={layout.tokens}",
        "--authorization-mode=Node,RBAC",
        "--disable-admission-plugins=TaintNodesByCondition",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={layout.service_account_key}",
        f"--service-account-signing-key-file={layout.service_account_key}",
        "--service-cluster-ip-range=10.96.0.0/16",
        # The service named kubernetes cannot point to a loopback address.
        "--endpoint-reconciler-type=none",
        order=1,
        # It would wait a minute for watches that nobody ends.
        stop_seconds=2.0,
    )


def controller_manager(layout: Layout) -> Process:
    """The controllers that the product relies on, and no others."""
    return _process(
        CONTROLLER_MANAGER,
        f"--kubeconfig={layout.kubeconfig}",
        f"--controllers={','.join(CONTROLLERS)}",
        f"--service-account-private-key-file={layout.service_account_key}",
        f"--root-ca-file={layout.certificate}",
        # Alone as it is: without its lease it exits, and a new one looks at everything at once.
        # Otherwise it goes on as it was after an outage, and retries with pauses up to a minute.
        "--leader-elect=true",
        "--leader-elect-lease-duration=6s",
        "--leader-elect-renew-deadline=5s",
        "--leader-elect-retry-period=1s",
        "--secure-port=0",
        # How often the binder looks again at a claim whose volume came after it; 15 s by default.
        "--pvclaimbinder-sync-period=2s",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        order=2,
    )


def _process(program: str, *flags: str, order: int, stop_seconds: float = 5.0) -> Process:
    argv = (str(KUBE), program, *flags)
    return Process(argv, cwd=str(CHECKOUT), order=order, stop_seconds=stop_seconds)
