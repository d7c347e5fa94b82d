"""The processes of the control plane, with their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.local import audit
from deploy.local.layout import CHECKOUT, KUBE
from deploy.local.ports import LOOPBACK
from deploy.local.process import Process

if TYPE_CHECKING:
    from deploy.local.layout import Layout
    from deploy.local.ports import Ports

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"

# None that checks the leases of Nodes: simulated nodes renew none.
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
# Only where a kubelet runs the pods.
WORKLOAD_CONTROLLERS = (
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "job-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "statefulset-controller",
)


def server_url(ports: Ports) -> str:
    """URL of the API server."""
    return f"https://{LOOPBACK}:{ports.api}"


def etcd(layout: Layout, ports: Ports) -> Process:
    """etcd, without fsync: a local cluster need not survive a crash of the machine."""
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


def api_server(layout: Layout, ports: Ports, *, kubelets: bool = False) -> Process:
    """The API server. It does not taint new Nodes, since no controller would remove the taint.

    kubelets: whether real nodes run, from which it reads logs, and whose rights it restricts.
    """
    # Some clusters run this plugin, which checks the rights on owners of objects.
    plugins = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement"
    for_kubelets = (
        f"--kubelet-client-certificate={layout.kubelet_client}",
        f"--kubelet-client-key={layout.kubelet_client}",
        "--kubelet-preferred-address-types=InternalIP",
    )
    return _process(
        API_SERVER,
        f"--etcd-servers=http://{LOOPBACK}:{ports.etcd}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--secure-port={ports.api}",
        f"--cert-dir={layout.certificates}",
        f"--token-auth-file={layout.tokens}",
        f"--audit-policy-file={layout.audit_policy}",
        f"--audit-log-path={layout.audit_log}",
        f"--audit-log-maxsize={audit.MEGABYTES}",
        f"--audit-log-maxbackup={audit.BACKUPS}",
        "--authorization-mode=Node,RBAC",
        f"{plugins},NodeRestriction" if kubelets else plugins,
        "--disable-admission-plugins=TaintNodesByCondition",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={layout.service_account_key}",
        f"--service-account-signing-key-file={layout.service_account_key}",
        "--service-cluster-ip-range=10.96.0.0/16",
        # The service named kubernetes cannot point to a loopback address.
        "--endpoint-reconciler-type=none",
        *(for_kubelets if kubelets else ()),
        order=1,
        # Without this, the API server waits a minute for open watches when it stops.
        stop_seconds=2.0,
    )


def controller_manager(layout: Layout, *, workloads: bool = False) -> Process:
    """The controller manager with the controllers that localmodel needs.

    workloads: whether Deployments, Jobs and the like get pods.
    """
    controllers = CONTROLLERS + (WORKLOAD_CONTROLLERS if workloads else ())
    return _process(
        CONTROLLER_MANAGER,
        f"--kubeconfig={layout.kubeconfig}",
        f"--controllers={','.join(controllers)}",
        f"--service-account-private-key-file={layout.service_account_key}",
        f"--root-ca-file={layout.certificate}",
        # Although there is one replica: after an outage of the API server it exits for want of its
        # lease, and a new process reconciles everything at once. Without leader election it would
        # retry with pauses up to a minute.
        "--leader-elect=true",
        "--leader-elect-lease-duration=6s",
        "--leader-elect-renew-deadline=5s",
        "--leader-elect-retry-period=1s",
        "--secure-port=0",
        # How soon a claim is bound to a volume that is newer than the claim; default 15 s.
        "--pvclaimbinder-sync-period=2s",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        order=2,
    )


def scheduler(layout: Layout) -> Process:
    """The scheduler, which finds no room for a pod on a simulated node."""
    return _process(
        SCHEDULER,
        f"--kubeconfig={layout.kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        order=2,
    )


def _process(program: str, *flags: str, order: int, stop_seconds: float = 5.0) -> Process:
    argv = (str(KUBE), program, *flags)
    return Process(argv, cwd=str(CHECKOUT), order=order, stop_seconds=stop_seconds)
