from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deploy.local import (
    build,
    controlplane,
    manifests,
    nodes,
    overlay,
    ports,
    process,
    product,
    targets,
    users,
)
from deploy.local.errors import LocalError
from deploy.local.layout import BUILD, CHECKOUT, Layout
from deploy.local.posix import child_environment
from deploy.local.process import Process
from deploy.local.real import daemon_set
from deploy.local.state import State

LAYOUT = Layout(Path("/l"))
PORTS = ports.Ports(etcd=1, etcd_peer=2, api=3, hooks=4, metacontroller=5)
AGENTS = product.AgentOptions(5.0, 0.5, ("--extra",), {"A": "b"})


def test_process_survives_its_file() -> None:
    spec = Process(("a", "b"), "/", {"C": "d"}, order=3, stop_seconds=1.5)
    assert Process.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"argv": ["a"], "cwd": "/", "x": 1}'])
def test_other_files_are_no_process(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Process.from_json(text)


def test_restarts_back_off_and_settle() -> None:
    assert [process.restart_delay(n) for n in (1, 2, 3, 4, 5, 500)] == [0.5, 1, 2, 4, 5, 5]
    assert process.deaths_in_a_row(3, lived_seconds=1) == 4
    assert process.deaths_in_a_row(3, lived_seconds=60) == 1


@pytest.mark.parametrize(("status", "text"), [(256, "exit status 1"), (9, "killed by signal 9")])
def test_statuses_in_words(status: int, text: str) -> None:
    assert process.describe_status(status) == text


def test_environment_of_the_programs() -> None:
    env = child_environment(
        {
            "KUBECONFIG": "x",
            "ETCD_NAME": "x",
            "MAKEFLAGS": "x",
            "HTTPS_PROXY": "p",
            "no_proxy": "a,localhost",
        }
    )
    assert env == {
        "HTTPS_PROXY": "p",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "a,localhost,127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }


def test_ports_stay_below_those_of_outgoing_connections() -> None:
    assert ports.ephemeral_start("32768\t60999\n") == 32768
    assert ports.ephemeral_start("") == ports.DEFAULT_EPHEMERAL
    assert ports.candidates(32768) == range(10000, 32768)
    # If the kernel leaves no ports below its range, ports are chosen nevertheless.
    assert len(ports.candidates(1024)) == 2000
    chosen = ports.free_ports(20)
    assert len(set(chosen)) == 20
    assert all(ports.is_free(port) for port in chosen)
    # A program that was started may not listen yet.
    some = ports.candidates(ports.ephemeral_start(ports.RANGE_FILE.read_text()))
    taken = some[: len(some) // 2]
    assert not set(ports.free_ports(2, taken)) & set(taken)


def test_prometheus_finds_the_endpoints_of_hooks_and_agents(tmp_path: Path) -> None:
    file = tmp_path / "prometheus" / "targets.json"
    targets.add(file, targets.HOOKS_JOB, "127.0.0.1:1")
    targets.add(file, targets.AGENT_JOB, "127.0.0.1:2", "node-1")
    targets.add(file, targets.AGENT_JOB, "127.0.0.1:3", "node-2")
    # A node that comes back has another port.
    targets.add(file, targets.AGENT_JOB, "127.0.0.1:4", "node-1")
    assert targets.ports(file) == {1, 3, 4}
    targets.remove(file, "node-2")
    targets.remove(file, "node-9")
    assert json.loads(file.read_text()) == [
        {"targets": ["127.0.0.1:1"], "labels": {"job": "localmodel-hooks"}},
        {"targets": ["127.0.0.1:4"], "labels": {"job": "localmodel-agent", "node": "node-1"}},
    ]


def test_everything_listens_on_loopback_only() -> None:
    etcd = controlplane.etcd(LAYOUT, PORTS).argv
    assert "--listen-client-urls=http://127.0.0.1:1" in etcd
    assert "--listen-peer-urls=http://127.0.0.1:2" in etcd
    api = controlplane.api_server(LAYOUT, PORTS).argv
    assert {"--bind-address=127.0.0.1", "--secure-port=3"} <= set(api)
    assert "--secure-port=0" in controlplane.controller_manager(LAYOUT).argv
    hooks = product.hooks(PORTS, {"A": "b"})
    assert "127.0.0.1:4" in hooks.argv
    assert hooks.env == {"A": "b"}


def test_clients_stop_before_their_servers() -> None:
    orders = [
        controlplane.etcd(LAYOUT, PORTS).order,
        controlplane.api_server(LAYOUT, PORTS).order,
        controlplane.controller_manager(LAYOUT).order,
        product.metacontroller(LAYOUT, PORTS, None).order,
        product.agent(LAYOUT, "n", AGENTS, 6).order,
    ]
    assert orders == sorted(set(orders))


def test_agent_arguments() -> None:
    spec = product.agent(LAYOUT, "node-1", AGENTS, 6)
    assert spec.env == {"A": "b"}
    assert spec.argv[1:] == (
        "-m",
        "agent.main",
        "run",
        "--node-name",
        "node-1",
        "--root",
        "/l/nodes/node-1",
        "--kubeconfig",
        "/l/run/agent-node-1.kubeconfig",
        "--http-bind-address",
        "127.0.0.1:6",
        # A free port each: all agents share one loopback.
        "--peer-bind-address",
        "127.0.0.1:0",
        "--disk-size",
        "20Gi",
        "--grace-seconds",
        "5",
        "--progress-seconds",
        "0.5",
        "--kubelet-thresholds",
        "off",
        "--allow-network",
        "127.0.0.0/8",
        "--allow-network",
        "::1/128",
        "--extra",
    )


def test_agents_exchange_nothing_where_the_overlay_says_so() -> None:
    environment = overlay.agents_environment(CHECKOUT, "kserve")
    options = replace(AGENTS, env=environment)
    assert options.exchanges_nothing
    assert "--peer-bind-address" not in product.agent(LAYOUT, "node-1", options, 6).argv
    # Nor do those that run as pods.
    found = daemon_set.read(CHECKOUT, options, PORTS)
    (container,) = found["spec"]["template"]["spec"]["containers"]
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert values["LOCALMODEL_PEER_BIND_ADDRESS"] == ""


def test_choice_of_metacontroller(tmp_path: Path) -> None:
    program = tmp_path / "metacontroller"
    program.touch(mode=0o755)
    on_path = {"PATH": str(tmp_path)}
    assert product.choose_metacontroller("auto", on_path) == str(program)
    assert product.choose_metacontroller("standin", on_path) is None
    assert product.choose_metacontroller("auto", {"PATH": ""}) is None
    named = {"PATH": "", "METACONTROLLER": str(program)}
    assert product.choose_metacontroller("real", named) == str(program)
    with pytest.raises(LocalError, match="no metacontroller program"):
        product.choose_metacontroller("real", {"PATH": ""})
    with pytest.raises(LocalError, match="is not a program"):
        product.choose_metacontroller("auto", {"PATH": "", "METACONTROLLER": "/no/such"})
    real = product.metacontroller(LAYOUT, PORTS, str(program)).argv
    assert "--kubeconfig=/l/run/metacontroller.kubeconfig" in real
    assert "--apply-strategy=server-side-apply" in real


def test_users_are_those_of_the_manifests() -> None:
    accounts = {
        (one["metadata"]["namespace"], one["metadata"]["name"])
        for file in ("deploy/base/rbac.yaml", "metacontroller/install/rbac.yaml")
        for one in yaml.safe_load_all((CHECKOUT / file).read_text())
        if one["kind"] == "ServiceAccount"
    }
    ours = (users.AGENT, users.HOOKS, users.METACONTROLLER)
    assert {(one.namespace, one.account) for one in ours} == accounts
    assert users.AGENT.name == "system:serviceaccount:localmodel:localmodel-agent"
    assert users.token_file("t") == 't,admin,admin,"system:masters"\n'
    text = users.kubeconfig(
        server="https://127.0.0.1:3", authority=Path("/ca"), user="agent", token="t"
    )
    config = yaml.safe_load(text)
    assert config["clusters"][0]["cluster"] == {
        "server": "https://127.0.0.1:3",
        "certificate-authority": "/ca",
    }
    assert config["users"][0]["user"] == {"token": "t"}


def test_state_survives_its_file(tmp_path: Path) -> None:
    state = State(PORTS, None, AGENTS, "kserve", real_nodes=True)
    state.save(tmp_path / "state")
    assert State.load(tmp_path / "state") == state


def test_overlays_are_the_folders_there_are() -> None:
    assert overlay.names(CHECKOUT) == ["base", "kserve", "standalone"]
    with pytest.raises(LocalError, match="no overlay 'kserv'"):
        overlay.check(CHECKOUT, "kserv")
    of_base = overlay.hooks_environment(CHECKOUT, "base")
    assert of_base["LOCALMODEL_VOLUMES"] == "model"
    assert overlay.hooks_environment(CHECKOUT, "standalone") == of_base
    # An overlay adds variables and changes values, and removes none.
    of_kserve = overlay.hooks_environment(CHECKOUT, "kserve")
    assert of_kserve["LOCALMODEL_VOLUMES"] == "root"
    assert of_base.keys() < of_kserve.keys()
    assert overlay.manifest_files(CHECKOUT, "base") == []
    assert overlay.agents_environment(CHECKOUT, "base") == {overlay.VOLUMES: "model"}
    assert overlay.agents_environment(CHECKOUT, "kserve")[overlay.VOLUMES] == "root"
    assert overlay.neighbour_files(CHECKOUT, "base") == []
    assert overlay.neighbour_files(CHECKOUT, "standalone") == []
    neighbours = manifests.read(overlay.neighbour_files(CHECKOUT, "kserve"), hooks_url="")
    assert manifests.crd_names(neighbours) == [
        "inferenceservices.serving.kserve.io",
        "llminferenceservices.serving.kserve.io",
    ]


def test_nodes() -> None:
    assert nodes.node_names(2) == ["node-1", "node-2"]
    labels = nodes.node_object("node-1", {"zone": "a"})["metadata"]["labels"]
    assert labels == {
        "kubernetes.io/hostname": "node-1",
        "kubernetes.io/os": "linux",
        "pool": "gpu",
        "zone": "a",
    }
    with pytest.raises(LocalError, match="cannot be the name"):
        nodes.check_name("../node")


def test_webhooks_point_to_the_local_hooks() -> None:
    text = "a: http://localmodel-hooks.localmodel.svc:8080/x\n---\n---\nb: 1\n"
    assert manifests.parse(text, hooks_url="http://127.0.0.1:4") == [
        {"a": "http://127.0.0.1:4/x"},
        {"b": 1},
    ]


def test_the_manifests_of_the_checkout() -> None:
    objects = manifests.read(manifests.install_files(CHECKOUT), hooks_url="http://127.0.0.1:4")
    kinds = [obj["kind"] for obj in objects]
    assert kinds.index("Namespace") < kinds.index("CustomResourceDefinition")
    assert "localmodelcaches.serving.kserve.io" in manifests.crd_names(objects)
    then = manifests.read(manifests.controller_files(CHECKOUT), hooks_url="http://127.0.0.1:4")
    assert len(then) == 4
    assert "localmodel.svc" not in json.dumps(then)
    with pytest.raises(LocalError, match="is missing"):
        manifests.read([CHECKOUT / "no-such.yaml"], hooks_url="")


GO_MOD = "module m\n\ngo 1.26.0\n\nrequire (\n\tk8s.io/kubernetes v1.36.3\n)\n"


def test_versions_come_from_go_mod() -> None:
    assert build.required_go(GO_MOD) == (1, 26, 0)
    assert build.kubernetes_version(GO_MOD) == "v1.36.3"
    flags = build.link_flags(GO_MOD)
    assert "gitVersion=v1.36.3" in flags
    assert flags.endswith("gitMajor=1 -X k8s.io/component-base/version.gitMinor=36")
    assert build.link_flags("module m\n\ngo 1.26.0\n") == "-s -w"
    with pytest.raises(ValueError, match="Go version"):
        build.required_go("module m\n")


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ("go1.26.8\n", True),
        ("go1.27", True),
        ("go1.26rc1", False),
        ("go1.25.9", False),
        ("", False),
    ],
)
def test_go_is_taken_when_new_enough(answer: str, fits: bool) -> None:
    assert (build.go_version(answer) >= (1, 26, 0)) is fits


def test_what_is_built_follows_its_sources(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text(GO_MOD)
    program = build.Program("p", tmp_path / "p", tmp_path, ".", "")
    assert not build.is_built(program)
    program.output.touch()
    program.stamp.write_text(build.digest(program))
    assert build.is_built(program)
    (tmp_path / "go.sum").write_text("x")
    assert not build.is_built(program)


def test_paths_are_those_of_the_interface() -> None:
    assert LAYOUT.kubeconfig == Path("/l/kubeconfig")
    assert LAYOUT.disk("node-1") == Path("/l/nodes/node-1")
    assert LAYOUT.log("hooks") == Path("/l/logs/hooks.log")
    assert LAYOUT.pid("hooks") == Path("/l/run/hooks.pid")
    assert os.path.commonpath([BUILD, CHECKOUT]) == str(CHECKOUT)
