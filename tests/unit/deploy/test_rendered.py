"""What the rendered manifests let the programs do. The chart renders the same (test_chart.py)."""

from __future__ import annotations

import itertools
import re
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from deploy.kubectl.simulation import rules_of
from deploy.local.chart import COMPONENTS, OVERLAYS, kustomization, kustomize, objects
from deploy.local.layout import CHECKOUT
from deploy.takeover.names import AGENT, NAMESPACE
from hooks.settings import Settings
from tests.fixtures import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.kube.kinds import KubeObject

# kubectl is a large program, which starts slowly on a busy machine.
pytestmark = pytest.mark.timeout(120)

HOOKS = "localmodel-hooks"
SCRAPING = {"namespaceSelector": {"matchLabels": {"localmodel.serving.kserve.io/scrape": "true"}}}
AVAILABLE = [name for name in COMPONENTS if (CHECKOUT / "deploy/components" / name).is_dir()]
Rendered = dict[tuple[str, str, str], dict[str, Any]]


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """An overlay with all components, and so with all that a component may add to a pod."""
    components = [f"deploy/components/{name}" for name in AVAILABLE]
    overlay = f"deploy/overlays/{request.param}"
    with kustomization(resources=[overlay], components=components) as folder:
        return objects(kustomize(folder))


def _pods(rendered: Rendered) -> Iterator[tuple[str, KubeObject]]:
    for (_, _, name), found in rendered.items():
        template = found.get("spec", {}).get("template")
        if template is not None:
            yield name, template["spec"]


def _agent(rendered: Rendered) -> KubeObject:
    spec: KubeObject = rendered["DaemonSet", NAMESPACE, AGENT]["spec"]
    return spec


def test_no_pod_has_privileges_of_the_node(rendered: Rendered) -> None:
    pods = dict(_pods(rendered))
    assert set(pods) == {AGENT, HOOKS}
    for pod in pods.values():
        assert not {"hostPID", "hostIPC", "hostNetwork"} & set(pod)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in itertools.chain(pod["containers"], pod.get("initContainers", ())):
            context = container["securityContext"]
            assert not context.get("privileged")
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"]["drop"] == ["ALL"]
            assert "procMount" not in context
            assert "hostPort" not in str(container.get("ports"))


def test_the_agent_has_one_directory_of_the_node_and_no_more(rendered: Rendered) -> None:
    pod = _agent(rendered)["template"]["spec"]
    hosts = {one["name"]: one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
    assert list(hosts) == ["models"]
    assert hosts["models"] in {"/var/lib/localmodel", "/models"}
    (container,) = pod["containers"]
    added = container["securityContext"]["capabilities"].get("add", [])
    # In the kserve overlay, for files that KServe's agent has written.
    assert set(added) <= {"DAC_OVERRIDE", "FOWNER"}
    writable = {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")}
    assert writable == {"/var/lib/localmodel", "/tmp"}
    assert all(one.get("mountPropagation") != "Bidirectional" for one in container["volumeMounts"])


def test_the_hooks_are_nobody_and_have_no_token_of_the_api_server(rendered: Rendered) -> None:
    pod = rendered["Deployment", NAMESPACE, HOOKS]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert not [one for one in pod.get("volumes", ()) if "hostPath" in one]


def test_the_network_of_the_hooks_is_closed(rendered: Rendered) -> None:
    policy = rendered["NetworkPolicy", NAMESPACE, HOOKS]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert not policy.get("egress")
    (rule,) = policy["ingress"]
    caller, scraping = rule["from"]
    assert scraping == SCRAPING
    # Both in one entry: pods of that label, of that namespace.
    assert set(caller) == {"namespaceSelector", "podSelector"}
    labels = caller["podSelector"]["matchLabels"]
    pod = _metacontroller()["spec"]["template"]["metadata"]["labels"]
    assert labels.items() <= pod.items()
    space = caller["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert space == _metacontroller()["metadata"]["namespace"]
    assert rule["ports"] == [{"port": "http"}]


def test_the_page_has_the_patch_for_another_metacontroller() -> None:
    page = (CHECKOUT / "docs/install.md").read_text()
    (block,) = re.findall(r"^  ```yaml\n(  patches:\n.*?)^  ```$", page, re.DOTALL | re.MULTILINE)
    patches = yaml.safe_load(textwrap.dedent(block))
    with kustomization(resources=["deploy/overlays/standalone"], **patches) as folder:
        policy = objects(kustomize(folder))["NetworkPolicy", NAMESPACE, HOOKS]["spec"]
    caller, scraping = policy["ingress"][0]["from"]
    space = {"kubernetes.io/metadata.name": "my-namespace"}
    assert caller["namespaceSelector"] == {"matchLabels": space}
    assert caller["podSelector"] == {"matchLabels": {"app": "my-metacontroller"}}
    assert scraping == SCRAPING


def test_the_page_has_the_patch_for_a_label_of_prometheus() -> None:
    page = (CHECKOUT / "docs/monitoring.md").read_text()
    (block,) = re.findall(
        r"^   ```yaml\n(   patches:\n.*?)^   ```$", page, re.DOTALL | re.MULTILINE
    )
    patches = yaml.safe_load(textwrap.dedent(block))
    components = ["deploy/components/monitoring"]
    with kustomization(["deploy/overlays/standalone"], components, **patches) as folder:
        found = objects(kustomize(folder))
    labelled = {key[0] for key, one in found.items() if "release" in one["metadata"]["labels"]}
    assert labelled == {"PodMonitor", "PrometheusRule"}


def test_only_prometheus_and_agents_connect_to_the_agents(rendered: Rendered) -> None:
    policy = rendered["NetworkPolicy", NAMESPACE, AGENT]["spec"]
    # Egress is open: an agent connects to origins and the API server.
    assert policy["policyTypes"] == ["Ingress"]
    # Without a namespaceSelector: pods of the agents' own namespace.
    agents = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": AGENT}}}
    assert policy["ingress"] == [
        {"ports": [{"port": "http"}], "from": [SCRAPING]},
        {"ports": [{"port": "peers"}], "from": [agents]},
    ]
    labels = _agent(rendered)["template"]["metadata"]["labels"]
    assert agents["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", [AGENT, HOOKS])
def test_a_network_policy_selects_its_pods(rendered: Rendered, name: str) -> None:
    kind = "DaemonSet" if name == AGENT else "Deployment"
    template = rendered[kind, NAMESPACE, name]["spec"]["template"]
    selector = rendered["NetworkPolicy", NAMESPACE, name]["spec"]["podSelector"]
    assert selector["matchLabels"].items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    assert "http" in {port["name"] for port in container["ports"]}


def test_every_probe_asks_the_port_that_the_program_listens_at(rendered: Rendered) -> None:
    for name, pod in _pods(rendered):
        (container,) = pod["containers"]
        probes = {key: container[key]["httpGet"] for key in container if key.endswith("Probe")}
        assert {one["port"] for one in probes.values()} == {"http"}
        assert probes["livenessProbe"]["path"] == "/healthz"
        assert probes["readinessProbe"]["path"] == "/readyz"
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        env = {one["name"]: one.get("value") for one in container["env"]}
        assert set(ports) == ({"http", "peers"} if name == AGENT else {"http"})
        if name == AGENT:
            assert env["LOCALMODEL_HTTP_BIND_ADDRESS"] == f":{ports['http']}"
            # /healthz has its own time for a slow start: tests/unit/agent/test_health.py.
            assert "startupProbe" not in container
        # A node that is short of CPU for a minute restarts nothing.
        liveness = container["livenessProbe"]
        assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60


def test_the_agents_serve_their_peers_at_the_port_that_is_open(rendered: Rendered) -> None:
    (container,) = _agent(rendered)["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    env = {one["name"]: one for one in container["env"]}
    volumes = env["LOCALMODEL_VOLUMES"]["value"]
    # Beside KServe, whose volumes show the whole root, an administrator turns it on.
    bound = f":{ports['peers']}" if volumes == "model" else ""
    assert env["LOCALMODEL_PEER_BIND_ADDRESS"]["value"] == bound
    # The agents' pods have the pod network, and no host port.
    told = env["LOCALMODEL_PEER_ADDRESS"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert told == "status.podIP"


def test_every_pod_has_a_priority_and_its_class_is_there(rendered: Rendered) -> None:
    for name, pod in _pods(rendered):
        assert pod["priorityClassName"] == name
        value = rendered["PriorityClass", "", name]["value"]
        # Above pods without a class, and below Kubernetes' own.
        assert 0 < value < 1_000_000_000


def test_an_update_never_runs_two_agents_on_a_node(rendered: Rendered) -> None:
    agent = _agent(rendered)
    assert agent["updateStrategy"]["type"] == "RollingUpdate"
    rolling = agent["updateStrategy"]["rollingUpdate"]
    assert rolling["maxSurge"] == 0
    assert rolling["maxUnavailable"] == "10%"
    assert agent["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


def test_an_update_of_the_hooks_leaves_both_replicas_in_service(rendered: Rendered) -> None:
    spec = rendered["Deployment", NAMESPACE, HOOKS]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = spec["template"]["spec"]
    assert {one["topologyKey"] for one in pod["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    for one in pod["topologySpreadConstraints"]:
        labels = spec["template"]["metadata"]["labels"]
        assert one["labelSelector"]["matchLabels"].items() <= labels.items()
        # A cluster with one node runs both replicas.
        assert one["whenUnsatisfiable"] == "ScheduleAnyway"
    (container,) = pod["containers"]
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # The longest call of metacontroller/nodegroups.yaml takes 30 seconds.
    assert pod["terminationGracePeriodSeconds"] >= wait + 30


def test_a_drain_takes_one_replica_of_the_hooks_also_if_there_is_one_only(
    rendered: Rendered,
) -> None:
    budget = rendered["PodDisruptionBudget", NAMESPACE, HOOKS]["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_roles_for_people_are_in_the_roles_of_kubernetes(rendered: Rendered) -> None:
    aggregated = {
        name: label.removeprefix("rbac.authorization.k8s.io/aggregate-to-")
        for (kind, _, name), found in rendered.items()
        if kind == "ClusterRole"
        for label in found["metadata"]["labels"]
        if label.startswith("rbac.authorization.k8s.io/aggregate-to-")
    }
    assert aggregated == {"localmodel-view": "view", "localmodel-edit": "edit"}
    view, edit, admin, plugin = (
        _rights(rendered["ClusterRole", "", f"localmodel-{name}"])
        for name in ("view", "edit", "admin", "kubectl")
    )
    kinds = {
        *("localmodelcaches", "localmodelnamespacecaches", "localmodelnodegroups"),
        *("localmodelnodes", "localmodelplacements"),
    }
    reads = {(kind, verb) for kind in kinds for verb in ("get", "list", "watch")}
    assert view == reads
    # Whoever may edit a namespace may make no cache of the whole cluster.
    assert {kind for kind, _ in edit} == {"localmodelnamespacecaches"}
    assert reads <= admin
    assert {kind for kind, verb in admin if verb == "create"} == {
        *("localmodelcaches", "localmodelnamespacecaches", "localmodelnodegroups"),
    }
    # pin, evict and verify.
    assert {right for right in plugin if right[1] == "patch"} == {
        ("localmodelcaches", "patch"),
        ("localmodelnamespacecaches", "patch"),
        ("localmodelnodes", "patch"),
    }
    assert {verb for _, verb in plugin} == {"get", "list", "watch", "patch"}


def test_nobody_is_bound_to_the_roles_for_people(rendered: Rendered) -> None:
    bound = {
        found["roleRef"]["name"]
        for (kind, _, _), found in rendered.items()
        if "Binding" in kind
        if "roleRef" in found
    }
    assert not bound & {f"localmodel-{name}" for name in ("view", "edit", "admin", "kubectl")}


def test_a_label_finds_all_that_is_not_in_a_namespace(rendered: Rendered) -> None:
    for (kind, _, name), found in rendered.items():
        assert found["metadata"]["labels"]["app.kubernetes.io/part-of"] == "localmodel", (
            kind,
            name,
        )


def _rights(role: KubeObject) -> set[tuple[str, str]]:
    return {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        if resource != "nodes"
        for verb in rule["verbs"]
    }


def _metacontroller() -> KubeObject:
    text = (CHECKOUT / "metacontroller/install/metacontroller.yaml").read_text()
    (found,) = objects(text).values()
    return found


# Functions of CEL by the first Kubernetes that has them (k8s.io/apiserver,
# pkg/cel/environment/base.go): the overlays are for 1.30.
NEWER = {
    "1.31": ("format.named", "fieldSelector", "labelSelector"),
    "1.32": ("transformList", "transformMap", "transformMapEntry"),
    "1.33": ("semver", "isSemver"),
    "1.34": ("flatten", "slice", "distinct", "sort", "sortBy", "reverse", "lists.range"),
}


def test_policies_and_crds_use_no_function_that_kubernetes_1_30_lacks(rendered: Rendered) -> None:
    newer = {name: since for since, names in NEWER.items() for name in names}
    called = re.compile(rf"\b({'|'.join(map(re.escape, newer))})\(")
    kinds = ("ValidatingAdmissionPolicy", "CustomResourceDefinition")
    found = {
        (name, match[1], newer[match[1]])
        for (kind, _, name), one in rendered.items()
        if kind in kinds
        for match in called.finditer(" ".join(_expressions(one)))
    }
    assert found == set()


def _expressions(value: Any) -> Iterator[str]:
    """The expressions in an object: of policies, and rules of CRDs."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in {"expression", "messageExpression", "rule"} and isinstance(inner, str):
                yield inner
            else:
                yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)


def test_the_role_of_the_plugin_lists_what_plan_reads(rendered: Rendered) -> None:
    (container,) = rendered["Deployment", NAMESPACE, HOOKS]["spec"]["template"]["spec"][
        "containers"
    ]
    environment = {one["name"]: one.get("value") or "" for one in container["env"]}
    settings = Settings.from_environment(environment)
    selecting = load("caches/sync/claims-for-namespaces").request["parent"]
    wanted = {
        (rule.api_version.rpartition("/")[0], rule.resource)
        for rule in rules_of(selecting, settings)
    }
    role = rendered["ClusterRole", "", "localmodel-kubectl"]
    listed = {
        (group, resource)
        for rule in role["rules"]
        if "list" in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    # One ConfigMap of KServe, and no others: see docs/install.md.
    assert wanted - listed <= {("", "configmaps")}
    assert ("", "namespaces") in wanted
