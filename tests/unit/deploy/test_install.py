"""The manifests agree with each other, with the code and with the docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.cluster.startup_taint import KEYS
from agent.commands.flags import parse
from agent.structs.credentials import DEFAULT_NAMESPACE, Unlisted
from deploy.local import overlay
from deploy.local import policies as policies_in_force
from deploy.local.layout import Layout
from deploy.local.ports import Ports
from deploy.local.product import metacontroller
from deploy.takeover import names as takeover
from hooks.app import create_app
from hooks.settings import (
    DEFAULT_HOST_PATH,
    HOST_PATH_VARIABLE,
    Settings,
    VolumeScope,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).parents[3]
CONTROLLERS = [
    TREE / "metacontroller" / f"{name}.yaml"
    for name in ("nodegroups", "nodes", "caches", "namespace-caches")
]
KSERVE = TREE / "deploy/overlays/kserve"
TAINT = TREE / "deploy/components/startup-taint"
WORKLOADS = ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"]
HOOKS_URL = "http://localmodel-hooks.localmodel.svc:8080"


def _documents(*files: Path) -> list[dict[str, Any]]:
    return [doc for file in files for doc in yaml.safe_load_all(file.read_text()) if doc]


def _find(kind: str, *files: Path) -> dict[str, Any]:
    (found,) = (doc for doc in _documents(*files) if doc["kind"] == kind)
    return found


@pytest.fixture(params=CONTROLLERS, ids=lambda file: file.stem)
def controller(request: pytest.FixtureRequest) -> dict[str, Any]:
    (doc,) = _documents(request.param)
    return doc


@pytest.mark.parametrize(
    "folder",
    [
        "crds/manifests",
        "metacontroller",
        "deploy/components/kubelet-configz",
        "deploy/base",
        "deploy/policies",
        "deploy/components/startup-taint",
        "deploy/pods",
        "deploy/overlays/kserve/beside",
        "deploy/overlays/kserve/takeover",
    ],
)
def test_every_manifest_of_a_folder_is_in_its_kustomization(folder: str) -> None:
    path = TREE / folder
    kustomization = yaml.safe_load((path / "kustomization.yaml").read_text())
    listed = {*kustomization["resources"], *(p["path"] for p in kustomization.get("patches", ()))}
    assert listed == {file.name for file in path.glob("*.yaml")} - {"kustomization.yaml"}


def test_every_hook_that_a_controller_names_is_served(controller: dict[str, Any]) -> None:
    served = {str(rule) for rule in create_app(Settings()).url_map.iter_rules()}
    for name, hook in controller["spec"]["hooks"].items():
        assert hook["version"] == "v2"
        url = hook["webhook"]["url"]
        assert url.startswith(HOOKS_URL + "/")
        assert url.removeprefix(HOOKS_URL) in served
        assert url.endswith(f"/{name}")


def test_every_hook_that_is_served_has_a_controller_that_calls_it() -> None:
    called = {
        hook["webhook"]["url"].removeprefix(HOOKS_URL)
        for doc in _documents(*CONTROLLERS)
        for hook in doc["spec"]["hooks"].values()
    }
    rules = create_app(Settings()).url_map.iter_rules()
    assert {str(rule) for rule in rules if "POST" in (rule.methods or ())} == called


def test_metacontrollers_finalizers_can_be_written() -> None:
    # The name after the slash of a finalizer has at most 63 characters. The API server would refuse
    # a longer name with each write of Metacontroller to a parent, and no parent would be synced.
    prefixes = {
        "CompositeController": "compositecontroller",
        "DecoratorController": "decoratorcontroller",
    }
    found = {
        f"metacontroller.io/{prefixes[doc['kind']]}-{doc['metadata']['name']}"
        for file in [*TREE.glob("metacontroller/**/*.yaml"), *TREE.glob("deploy/**/*.yaml")]
        # The templates of the chart are not YAML before they are rendered.
        if "templates" not in file.parts
        for doc in _documents(file)
        if doc.get("kind") in prefixes
    }
    assert len(found) == len(CONTROLLERS)
    for finalizer in {*found, *takeover.FINALIZERS}:
        _, _, name = finalizer.partition("/")
        assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", name), finalizer
    assert set(takeover.FINALIZERS) <= found


def test_the_service_of_the_hooks_is_where_the_controllers_look() -> None:
    service = _find("Service", TREE / "deploy/base/hooks.yaml")
    meta = service["metadata"]
    port = service["spec"]["ports"][0]["port"]
    assert f"http://{meta['name']}.{meta['namespace']}.svc:{port}" == HOOKS_URL


def _needed() -> Iterator[tuple[str, str, str]]:
    """The rights that Metacontroller needs for our controllers: (API group, resource, verb)."""
    related = [("serving.kserve.io/v1alpha1", r) for r in ("localmodelcaches", "localmodelnodes")]
    related += [
        ("serving.kserve.io/v1alpha1", "localmodelnamespacecaches"),
        ("serving.kserve.io/v1alpha1", "localmodelnodegroups"),
        ("serving.kserve.io/v1alpha1", "localmodelplacements"),
        ("v1", "namespaces"),
        ("metacontroller.k8s.io/v1alpha1", "compositecontrollers"),
        ("metacontroller.k8s.io/v1alpha1", "decoratorcontrollers"),
        ("metacontroller.k8s.io/v1alpha1", "controllerrevisions"),
        ("apiextensions.k8s.io/v1", "customresourcedefinitions"),
    ]
    for version, resource in related:
        for verb in ("list", "watch"):
            yield _group(version), resource, verb
    for kind in Settings.from_environment(overlay.hooks_environment(TREE, "base")).workload_kinds:
        for verb in ("list", "watch"):
            yield _group(kind.api_version), kind.resource, verb
    for doc in _documents(*CONTROLLERS):
        yield from _needed_by(doc["spec"])


def _needed_by(spec: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The rights that Metacontroller needs on parents and children of a controller."""
    if "parentResource" in spec:
        parent = spec["parentResource"]
        group, resource = _group(parent["apiVersion"]), parent["resource"]
        yield group, resource, "get"
        yield group, resource, "update"
        yield group, f"{resource}/status", "update"
        yield group, f"{resource}/finalizers", "update"
    for parent in spec.get("resources", ()):
        yield _group(parent["apiVersion"]), parent["resource"], "update"
        yield _group(parent["apiVersion"]), f"{parent['resource']}/finalizers", "update"
    for child in (*spec.get("childResources", ()), *spec.get("attachments", ())):
        for verb in ("list", "watch", "create", "patch", "delete"):
            yield _group(child["apiVersion"]), child["resource"], verb
    # Only those of a CompositeController are adopted.
    for child in spec.get("childResources", ()):
        for verb in ("get", "update"):
            yield _group(child["apiVersion"]), child["resource"], verb


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]


def test_metacontroller_may_do_what_its_controllers_need() -> None:
    role = _find("ClusterRole", TREE / "metacontroller/install/rbac.yaml")
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert set(_needed()) <= granted


@pytest.mark.parametrize("resource", ["deployments", "statefulsets", "daemonsets", "jobs"])
def test_metacontroller_only_reads_workloads(resource: str) -> None:
    role = _find("ClusterRole", TREE / "metacontroller/install/rbac.yaml")
    (verbs,) = (rule["verbs"] for rule in role["rules"] if resource in rule["resources"])
    assert verbs == ["list", "watch"]


@pytest.mark.parametrize(
    ("name", "volumes", "workloads"),
    [
        ("base", VolumeScope.MODEL, WORKLOADS),
        ("standalone", VolumeScope.MODEL, WORKLOADS),
        # KServe's webhooks fix claim and sub-path, and its services stand for their workloads.
        ("kserve", VolumeScope.ROOT, []),
    ],
)
def test_what_claims_show_and_which_workloads_get_one(
    name: str, volumes: VolumeScope, workloads: list[str]
) -> None:
    settings = Settings.from_environment(overlay.hooks_environment(TREE, name))
    assert settings.volumes is volumes
    assert [kind.kind for kind in settings.workload_kinds] == workloads


def test_metacontroller_may_read_the_kinds_that_the_hooks_of_the_kserve_overlay_request() -> None:
    settings = Settings.from_environment(overlay.hooks_environment(TREE, "kserve"))
    assert {kind.kind for kind in settings.service_kinds} == {
        "InferenceService",
        "LLMInferenceService",
    }
    role = _find("ClusterRole", KSERVE / "rbac.yaml")
    assert {
        (group, resource): rule["verbs"]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    } == {
        (group, resource): ["list", "watch"]
        for group, resource in (
            *(("serving.kserve.io", kind.resource) for kind in settings.service_kinds),
            ("", "configmaps"),
        )
    }
    (subject,) = _find("ClusterRoleBinding", KSERVE / "rbac.yaml")["subjects"]
    (account,) = (doc for doc in _documents(TREE / RIGHTS[0]) if doc["kind"] == subject["kind"])
    assert account["metadata"] == {k: subject[k] for k in ("name", "namespace")}


def test_the_kserve_overlay_patches_containers_of_the_base() -> None:
    patch, base = (
        _find("Deployment", path)
        for path in (KSERVE / "hooks.yaml", TREE / "deploy/base/hooks.yaml")
    )
    assert patch["metadata"].items() <= base["metadata"].items()
    (patched,), (container,) = (
        one["spec"]["template"]["spec"]["containers"] for one in (patch, base)
    )
    assert patched["name"] == container["name"]
    assert [file.name for file in overlay.manifest_files(TREE, "kserve")] == [
        "rbac.yaml",
        "policies.yaml",
        "namespace-importance.yaml",
        "node-status.yaml",
        "pod-annotations.yaml",
        "unique-uri.yaml",
    ]


def test_hooks_and_agent_agree_on_kserves_directory() -> None:
    patch = _find("DaemonSet", KSERVE / "agent.yaml")
    base = _find("DaemonSet", TREE / "deploy/base/agent.yaml")
    assert patch["metadata"].items() <= base["metadata"].items()
    (volume,) = patch["spec"]["template"]["spec"]["volumes"]
    settings = Settings.from_environment(overlay.hooks_environment(TREE, "kserve"))
    assert volume == {"name": "models", "hostPath": {"path": settings.host_path}}
    assert settings.host_path == "/models"


@pytest.mark.parametrize(
    ("name", "unlisted"),
    [("base", Unlisted.REFUSE), ("standalone", Unlisted.REFUSE), ("kserve", Unlisted.ALLOW)],
)
def test_who_may_use_credentials_that_list_no_namespaces(
    name: str, unlisted: Unlisted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in overlay.agents_environment(TREE, name).items():
        monkeypatch.setenv(variable, value)
    options = parse(["run", "--node-name", "n", "--root", "/r"])
    assert options.unlisted_credentials is unlisted


@pytest.mark.parametrize("name", ["standalone", "kserve"])
def test_every_policy_is_bound_and_denies(name: str) -> None:
    files = overlay.manifest_files(TREE, name)
    documents = [doc for doc in _documents(*files) if "Policy" in doc["kind"]]
    policies = {d["metadata"]["name"] for d in documents if d["kind"].endswith("Policy")}
    bindings = [d for d in documents if d["kind"].endswith("PolicyBinding")]
    assert {one["spec"]["policyName"] for one in bindings} == policies
    assert all(one["spec"]["validationActions"] == ["Deny"] for one in bindings)
    # A local cluster waits for this policy, so all the others must be enforced before it.
    assert [d["metadata"]["name"] for d in documents][-2:] == [policies_in_force.LAST] * 2


def test_the_policy_beside_kserve_is_bound_and_of_kserves_controller() -> None:
    policy, binding = _documents(KSERVE / "beside/policy.yaml")
    names = {one["metadata"]["name"] for one in (policy, binding)} | {binding["spec"]["policyName"]}
    assert names == {takeover.BESIDE}
    assert binding["spec"]["validationActions"] == ["Deny"]
    account = f"system:serviceaccount:{takeover.KSERVE_NAMESPACE}:{takeover.KSERVE_CONTROLLER}"
    assert f"'{account}'" in policy["spec"]["matchConditions"][0]["expression"]


def test_the_component_of_the_startup_taint_patches_the_agents_of_the_base() -> None:
    patch, base = (
        _find("DaemonSet", path) for path in (TAINT / "agent.yaml", TREE / "deploy/base/agent.yaml")
    )
    assert patch["metadata"].items() <= base["metadata"].items()
    (patched,), (container,) = (
        one["spec"]["template"]["spec"]["containers"] for one in (patch, base)
    )
    assert patched["name"] == container["name"]
    # The agents run on nodes that have the taint.
    assert base["spec"]["template"]["spec"]["tolerations"] == [{"operator": "Exists"}]
    account = {"kind": "ServiceAccount", "name": "localmodel-agent", "namespace": "localmodel"}
    assert _find("ClusterRoleBinding", TAINT / "rbac.yaml")["subjects"] == [account]
    (rule,) = _find("ClusterRole", TAINT / "rbac.yaml")["rules"]
    assert (rule["resources"], rule["verbs"]) == (["nodes"], ["get", "patch"])


def test_no_tenant_keeps_new_nodes_out_of_service(monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = _find("DaemonSet", TAINT / "agent.yaml")["spec"]["template"]["spec"][
        "containers"
    ]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    options = parse(["run", "--node-name", "n", "--root", "/r"])
    # Namespaces may set 0 at most: see namespace-importance.yaml.
    assert options.startup_taint_priority > 0


def test_the_policy_of_the_startup_taint_is_bound_and_has_the_agents_keys() -> None:
    policy, binding = _documents(TAINT / "policy.yaml")
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
    (keys,) = (v["expression"] for v in policy["spec"]["variables"] if v["name"] == "keys")
    assert set(re.findall("'([^']+)'", keys)) == KEYS


RIGHTS = [
    "metacontroller/install/rbac.yaml",
    "deploy/base/rbac.yaml",
    "deploy/components/startup-taint/rbac.yaml",
    "deploy/overlays/kserve/rbac.yaml",
    "deploy/overlays/kserve/takeover/rbac.yaml",
    "deploy/components/kubelet-configz/rbac.yaml",
]
# The component whose price is this right, as docs/security.md says.
READS_SECRETS = "deploy/components/hooks-token/controllers/rbac.yaml"


@pytest.mark.parametrize("file", [*RIGHTS, READS_SECRETS])
def test_no_right_is_a_wildcard(file: str) -> None:
    for doc in _documents(TREE / file):
        for rule in doc.get("rules", ()):
            assert not any("*" in values for values in rule.values())


@pytest.mark.parametrize("file", RIGHTS)
def test_nobody_reads_secrets_of_the_whole_cluster(file: str) -> None:
    role = _find("ClusterRole", TREE / file)
    readable = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert readable.isdisjoint({"secrets", "serviceaccounts", "serviceaccounts/token"})
    bindings = [doc for doc in _documents(TREE / file) if doc["kind"] == "ClusterRoleBinding"]
    assert {binding["roleRef"]["name"] for binding in bindings} == {role["metadata"]["name"]}


def test_a_component_that_is_off_by_default_lists_secrets_and_does_no_more() -> None:
    (rule,) = _find("ClusterRole", TREE / READS_SECRETS)["rules"]
    assert rule == {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}


def test_the_agent_has_the_rights_that_its_watches_and_its_events_need() -> None:
    role = _find("ClusterRole", TREE / "deploy/base/rbac.yaml")
    granted = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert granted == {
        ("serving.kserve.io", "localmodelnodes"): {"get", "list", "watch"},
        ("serving.kserve.io", "localmodelnodes/status"): {"patch"},
        ("", "pods"): {"list", "watch", "patch"},
        ("", "events"): {"create", "patch"},
        ("events.k8s.io", "events"): {"create", "patch"},
    }


def test_the_agent_reads_secrets_by_name_in_one_namespace() -> None:
    rbac = TREE / "deploy/base/rbac.yaml"
    role, binding = _find("Role", rbac), _find("RoleBinding", rbac)
    assert role["metadata"] == binding["metadata"]
    assert role["metadata"]["namespace"] == DEFAULT_NAMESPACE
    assert [rule["verbs"] for rule in role["rules"]] == [["get"]]
    assert binding["roleRef"]["kind"] == "Role"
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "localmodel-agent", "namespace": "localmodel"}
    ]
    spaces = _documents(TREE / "deploy/base/namespace.yaml")
    assert DEFAULT_NAMESPACE in {space["metadata"]["name"] for space in spaces}


def test_the_hooks_have_no_rights_and_no_token() -> None:
    bindings = [d for d in _documents(TREE / "deploy/base/rbac.yaml") if "subjects" in d]
    assert "localmodel-hooks" not in {s["name"] for b in bindings for s in b["subjects"]}
    pod = _find("Deployment", TREE / "deploy/base/hooks.yaml")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("Deployment", "deploy/base/hooks.yaml"),
        ("DaemonSet", "deploy/base/agent.yaml"),
        ("StatefulSet", "metacontroller/install/metacontroller.yaml"),
        ("Job", "deploy/overlays/kserve/takeover/job.yaml"),
    ],
)
def test_pods_have_no_more_power_than_they_need(kind: str, file: str) -> None:
    pod = _find(kind, TREE / file)["spec"]["template"]["spec"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= set(container["resources"])


def test_the_agents_reach_tainted_nodes() -> None:
    pod = _find("DaemonSet", TREE / "deploy/base/agent.yaml")["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists"}]


def test_hooks_and_agent_agree_on_the_directory_of_the_node() -> None:
    hooks = _find("Deployment", TREE / "deploy/base/hooks.yaml")["spec"]["template"]["spec"]
    env = {e["name"]: e.get("value") for e in hooks["containers"][0]["env"]}
    agent = _find("DaemonSet", TREE / "deploy/base/agent.yaml")["spec"]["template"]["spec"]
    container = agent["containers"][0]
    agent_env = {e["name"]: e.get("value") for e in container["env"]}
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    host = {v["name"]: v.get("hostPath", {}).get("path") for v in agent["volumes"]}
    assert env[HOST_PATH_VARIABLE] == host["models"] == DEFAULT_HOST_PATH
    assert agent_env["LOCALMODEL_ROOT"] == mounts["models"]


def test_the_agents_know_the_address_of_their_node() -> None:
    pod = _find("DaemonSet", TREE / "deploy/base/agent.yaml")["spec"]["template"]["spec"]
    (address,) = (
        one for one in pod["containers"][0]["env"] if one["name"] == "LOCALMODEL_NODE_ADDRESS"
    )
    assert address["valueFrom"]["fieldRef"]["fieldPath"] == "status.hostIP"


def test_the_agents_use_a_disk_that_is_mounted_after_their_start() -> None:
    """The agents write to a disk that is mounted at their directory after their start."""
    agent = _find("DaemonSet", TREE / "deploy/base/agent.yaml")["spec"]["template"]["spec"]
    mounts = agent["containers"][0]["volumeMounts"]
    (models,) = (mount for mount in mounts if mount["name"] == "models")
    assert models["mountPropagation"] == "HostToContainer"
    # The overlays change the directory, and not its mountPropagation.
    patch = _find("DaemonSet", TREE / "deploy/overlays/kserve/agent.yaml")["spec"]["template"]
    assert all("volumeMounts" not in one for one in patch["spec"]["containers"])


def test_the_kserve_overlay_grants_the_agents_two_capabilities_and_no_more() -> None:
    patch = _find("DaemonSet", TREE / "deploy/overlays/kserve/agent.yaml")["spec"]["template"]
    (container,) = patch["spec"]["containers"]
    assert container["securityContext"] == {"capabilities": {"add": ["DAC_OVERRIDE", "FOWNER"]}}


def test_metacontroller_runs_alike_on_a_real_and_on_the_local_cluster(tmp_path: Path) -> None:
    pod = _find("StatefulSet", TREE / "metacontroller/install/metacontroller.yaml")
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    local = metacontroller(Layout(tmp_path), Ports(1, 2, 3, 4, 5), "metacontroller").argv
    # The interval decides only how soon new kinds are found.
    flags = {arg for arg in container["args"] if not arg.startswith("--discovery-interval")}
    assert flags <= set(local)


def test_metacontrollers_kinds_and_image_are_of_one_version() -> None:
    pod = _find("StatefulSet", TREE / "metacontroller/install/metacontroller.yaml")
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    version = container["image"].rpartition(":")[2]
    kustomization = (TREE / "metacontroller/install/kustomization.yaml").read_text()
    assert f"/{version}/manifests/" in kustomization


def test_every_test_that_the_page_on_kserve_names_is_there() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", (TREE / "docs" / "kserve.md").read_text()))
    there = {
        name
        for file in (TREE / "tests").rglob("*.py")
        for name in re.findall(r"def (test_[a-z0-9_]+)\(", file.read_text())
    }
    assert len(named) > 20
    assert named - there == set()


def test_the_names_in_the_takeover_are_those_of_the_manifests() -> None:
    policies = {d["metadata"]["name"] for d in _documents(KSERVE / "policies.yaml")}
    assert takeover.POLICY in policies
    controllers = {(doc["kind"], doc["metadata"]["name"]) for doc in _documents(*CONTROLLERS)}
    assert controllers == {
        *(("CompositeController", name) for name in takeover.COMPOSITES),
        *(("DecoratorController", name) for name in takeover.DECORATORS),
    }
    agent = _find("DaemonSet", TREE / "deploy/base/agent.yaml")["metadata"]
    assert (agent["name"], agent["namespace"]) == (takeover.AGENT, takeover.NAMESPACE)
    assert agent["labels"][takeover.AGENT_POD_LABEL] == takeover.AGENT
    assert takeover.JOB_NAMESPACE == DEFAULT_NAMESPACE


def test_the_versions_that_the_page_says_are_tested_are_those_of_the_tests() -> None:
    page = (TREE / "docs" / "install.md").read_text()
    kube, helm = ((TREE / f"deploy/local/{name}/go.mod").read_text() for name in ("kube", "helm"))
    tested = {
        "Kubernetes": re.search(r"k8s\.io/kubernetes v([\d.]+)$", kube, re.MULTILINE),
        "Helm": re.search(r"helm\.sh/helm/v4 v(\d+\.\d+)", helm),
        "KServe": re.search(r"^kserve==(\d+\.\d+)", _text("kserve-sdk.txt"), re.MULTILINE),
    }
    for name, found in tested.items():
        assert found is not None
        assert re.search(
            rf"^\| {name} \|[^|]*\b{re.escape(found[1])}[^|]*\|", page, re.MULTILINE
        ), name
    (container,) = _find("StatefulSet", TREE / "metacontroller/install/metacontroller.yaml")[
        "spec"
    ]["template"]["spec"]["containers"]
    version = container["image"].rpartition(":v")[2]
    assert f"metacontroller/v{version}/manifests" in page


def _text(name: str) -> str:
    return (TREE / "deploy/local" / name).read_text()
