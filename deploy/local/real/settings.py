"""The configuration files of a real node's kubelet, containerd and CNI. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from deploy.local.real.images import BUSYBOX

if TYPE_CHECKING:
    from pathlib import Path

SOCKET = "/run/containerd/containerd.sock"
CNI_SETTINGS = "/run/cni"
# No route of a real network leads to these addresses: they are reserved for benchmarks.
POD_NETWORK = IPv4Network("198.18.0.0/15")
POD_PREFIX = 26


@dataclass(frozen=True)
class Kubelet:
    """What differs between the kubelets of a machine. client: the API server's certificate."""

    port: int
    cgroup: str
    client: Path
    resolver: Path


def kubelet(settings: Kubelet) -> str:
    """The KubeletConfiguration of a node (as JSON, which is YAML too)."""
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node_address(settings.port),
        "port": settings.port,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(settings.client)},
        },
        # Who has the API server's certificate: nobody else is authenticated.
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": settings.cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        # The node shares its disk and memory with the machine, which others may fill.
        "evictionHard": {
            "memory.available": "1Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "makeIPTablesUtilChains": False,
        "resolvConf": str(settings.resolver),
        # Nothing answers there. Without it, kubelet warns about the DNS of every pod.
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        # The default is outside the node's own folders.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }
    return json.dumps(config, indent=1)


def containerd(cni_folder: Path) -> str:
    """The configuration of containerd, in version 2 of its format, which 1.6 to 2.x read."""
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{BUSYBOX}"
# Otherwise runc fails in a container that may not lower its own score.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_folder}"
conf_dir = "{CNI_SETTINGS}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def node_address(port: int) -> str:
    """The address of a node: on loopback, and as different from others as its kubelet's port."""
    return f"127.1.{port >> 8}.{port & 255}"


def pod_subnet(port: int) -> IPv4Network:
    """The addresses of a node's pods: as different from another node's as their kubelets' ports."""
    subnets = 2 ** (POD_PREFIX - POD_NETWORK.prefixlen)
    first = int(POD_NETWORK.network_address) + (port % subnets) * 2 ** (32 - POD_PREFIX)
    return IPv4Network((first, POD_PREFIX))


def cni(port: int) -> str:
    """The network of a node's pods: a pod reaches its node, and nothing beyond it."""
    ranges = [[{"subnet": str(pod_subnet(port))}]]
    ipam = {"type": "host-local", "dataDir": "/run/cni-addresses", "ranges": ranges}
    plugin = {"type": "ptp", "ipMasq": False, "ipam": ipam}
    return json.dumps({"cniVersion": "0.4.0", "name": "localmodel", "plugins": [plugin]}, indent=1)
