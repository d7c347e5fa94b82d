from __future__ import annotations

import json
import tarfile
import tomllib
from pathlib import Path

import pytest

from deploy.local import controlplane, users
from deploy.local.errors import LocalError
from deploy.local.layout import CHECKOUT, Layout
from deploy.local.ports import Ports
from deploy.local.product import AgentOptions
from deploy.local.real import (
    agent_image,
    cgroups,
    daemon_set,
    images,
    nodes,
    packages,
    pods,
    settings,
)

LAYOUT = Layout(Path("/l"))
PORTS = Ports(etcd=1, etcd_peer=2, api=3, hooks=4, metacontroller=5)
AGENTS = AgentOptions(
    5.0, 0.5, ("--extra",), {"A": "b", "C": "d"}, in_pods=True, pods_env={"C": "e"}
)


def test_who_is_not_root_learns_it_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _name, **_options: None)
    with pytest.raises(LocalError, match="need root") as found:
        packages.require(tmp_path)
    assert found.value.todo.startswith("run the command as root, or start simulated nodes only")


def test_one_command_installs_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda _name, **_options: None)
    monkeypatch.setattr(packages, "CNI_FOLDERS", (tmp_path,))
    with pytest.raises(LocalError, match="not installed: busybox-static, containerd, c") as found:
        packages.require(tmp_path)
    names = "busybox-static containerd containernetworking-plugins runc"
    assert found.value.todo.endswith(f"apt-get install --yes --no-install-recommends {names}")


def _have_everything(monkeypatch: pytest.MonkeyPatch, folder: Path, program: bytes) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name, **_options: str(folder / name))
    monkeypatch.setattr(packages, "CNI_FOLDERS", (folder,))
    for name in (*packages.CNI_PLUGINS, "busybox"):
        (folder / name).write_bytes(program)


def test_a_node_hides_some_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _have_everything(monkeypatch, tmp_path, b"\x7fELF static")
    assert packages.require(tmp_path) == packages.Packages(tmp_path, tmp_path / "busybox")
    with pytest.raises(LocalError, match="cannot use /var/lib/x"):
        packages.require(Path("/var/lib/x"))


def test_a_busybox_with_libraries_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _have_everything(monkeypatch, tmp_path, b"\x7fELF /lib64/ld-linux-x86-64.so.2")
    with pytest.raises(LocalError, match=r"not installed: busybox-static$"):
        packages.require(tmp_path)


def test_only_the_api_server_may_call_a_kubelet() -> None:
    kubelet = settings.Kubelet(7, "/c/n", LAYOUT.kubelet_client, Path("/r"))
    config = json.loads(settings.kubelet(kubelet))
    assert config["address"] == "127.1.0.7"
    assert config["port"] == 7
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authentication"]["x509"]["clientCAFile"] == "/l/run/kubelet-client.pem"
    api = controlplane.api_server(LAYOUT, PORTS, kubelets=True).argv
    assert "--kubelet-client-certificate=/l/run/kubelet-client.pem" in api
    assert not any("kubelet" in flag for flag in controlplane.api_server(LAYOUT, PORTS).argv)


def test_containerd_pulls_no_sandbox() -> None:
    config = tomllib.loads(settings.containerd(Path("/cni")))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == images.BUSYBOX
    assert cri["cni"] == {"bin_dir": "/cni", "conf_dir": "/run/cni"}


def test_nodes_have_different_addresses_for_themselves_and_their_pods() -> None:
    addresses = {settings.node_address(port) for port in range(10000, 32768)}
    assert len(addresses) == 22768
    subnets = {settings.pod_subnet(port) for port in range(10000, 12048)}
    assert len(subnets) == 2048
    assert all(subnet.subnet_of(settings.POD_NETWORK) for subnet in subnets)
    (plugin,) = json.loads(settings.cni(10000))["plugins"]
    assert plugin["ipam"]["ranges"] == [[{"subnet": str(settings.pod_subnet(10000))}]]


def test_a_kubelet_has_the_rights_of_its_node_alone() -> None:
    admin = json.loads(
        users.kubeconfig(server="https://s", authority=Path("/ca"), user=users.ADMIN, token="t")
    )
    (user,) = json.loads(users.node_kubeconfig(admin, "real-1"))["users"]
    assert user["user"] == {
        "token": "t",
        "as": "system:node:real-1",
        "as-groups": ["system:nodes"],
    }


def test_each_cluster_has_a_cgroup() -> None:
    assert cgroups.name_of(Path("/a")) != cgroups.name_of(Path("/b"))
    assert cgroups.name_of(Path("/a")).startswith("localmodel-")


def test_images_are_archives_of_docker(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    images.write_layer(layer, [("/opt/a", Path(__file__))])
    images.write(tmp_path / "image.tar", "n:1", [layer], {"Env": ["A=b"]})
    with tarfile.open(tmp_path / "image.tar") as archive:

        def read(name: str) -> bytes:
            found = archive.extractfile(name)
            assert found is not None
            return found.read()

        (manifest,) = json.loads(read("manifest.json"))
        assert manifest["RepoTags"] == ["n:1"]
        (name,) = manifest["Layers"]
        assert read(name) == layer.read_bytes()
        config = json.loads(read(manifest["Config"]))
    assert config["rootfs"]["diff_ids"] == [f"sha256:{name.removesuffix('.tar')}"]
    with tarfile.open(layer) as files:
        (entry,) = files.getmembers()
        assert (entry.name, entry.uid, entry.size) == ("opt/a", 0, Path(__file__).stat().st_size)


def test_the_daemon_set_is_the_shipped_one() -> None:
    found = daemon_set.read(CHECKOUT, AGENTS, PORTS)
    spec = found["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "localmodel-agent"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"} | nodes.LABEL
    assert spec["volumes"][0]["hostPath"]["path"] == "/var/lib/localmodel"
    (container,) = spec["containers"]
    assert container["args"][:4] == ["localmodel-agent", "run", "--disk-size", "20Gi"]
    assert container["args"][-1] == "--extra"
    assert (container["image"], container["imagePullPolicy"]) == (agent_image.NAME, "Never")
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert (values["A"], values["C"]) == ("b", "e")
    assert values["KUBERNETES_SERVICE_HOST"] == "127.0.0.1"
    # The agents have one port and different addresses: all of them use the machine's network.
    assert values["LOCALMODEL_HTTP_BIND_ADDRESS"] == "$(LOCALMODEL_NODE_ADDRESS):8081"
    assert values["LOCALMODEL_PEER_BIND_ADDRESS"] == "$(LOCALMODEL_NODE_ADDRESS):8089"
    names = [entry["name"] for entry in container["env"]]
    assert names.index("LOCALMODEL_NODE_ADDRESS") < names.index("LOCALMODEL_HTTP_BIND_ADDRESS")
    assert values["KUBERNETES_SERVICE_PORT"] == "3"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_pod_mounts_a_part_of_a_claim() -> None:
    made = pods.pod("p", "n", "ls", node="real-1", claim="c", sub_path="models/k")
    (container,) = made["spec"]["containers"]
    assert container["volumeMounts"] == [
        {"name": "model", "mountPath": "/mnt/models", "subPath": "models/k", "readOnly": True}
    ]
    assert "volumes" not in pods.pod("p", "n")["spec"]
