"""The chart renders what kustomize renders, and refuses values that mean nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from crds.version import __version__
from deploy.local import chart
from deploy.local.build import ensure_helm
from deploy.local.chart import CHART, COMPONENTS, KEEP, OVERLAYS, kustomization, kustomize, objects
from deploy.local.layout import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

# helm and kubectl are large programs, which start slowly on a busy machine.
pytestmark = pytest.mark.timeout(120)

Objects = dict[tuple[str, str, str], dict[str, Any]]
TOKEN_PART = "hooks-token"
TOKEN = ("Secret", "localmodel", "localmodel-hooks-token")
SWITCHES = {
    "hooks-token": "hooks.token",
    "kubelet-configz": "kubeletConfigz",
    "startup-taint": "startupTaint",
    "monitoring": "monitoring",
}
AVAILABLE = [name for name in COMPONENTS if (CHECKOUT / "deploy/components" / name).is_dir()]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ensure_helm(), *arguments], capture_output=True, text=True, check=False)


def template(*values: str, namespace: str = "localmodel", folder: Path = CHART) -> Objects:
    settings = [part for value in values for part in ("--set-json", value)]
    done = helm("template", "localmodel", str(folder), "--namespace", namespace, *settings)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def of_kustomize(overlay: str, components: list[str]) -> Objects:
    """What the pages on kustomize have a person apply, without Metacontroller's own CRDs."""
    folders = [f"deploy/overlays/{overlay}", "crds/manifests", "deploy/pods"]
    folders.append(
        "deploy/components/hooks-token/controllers"
        if TOKEN_PART in components
        else "metacontroller"
    )
    paths = [f"deploy/components/{name}" for name in components]
    with kustomization(resources=folders, components=paths) as folder:
        found = objects(kustomize(folder))
    listed = yaml.safe_load((CHECKOUT / "metacontroller/install/kustomization.yaml").read_text())
    for name in listed["resources"]:
        if "://" not in name:
            found |= objects((CHECKOUT / "metacontroller/install" / name).read_text())
    return found


def _comparable(found: Objects) -> Objects:
    """The objects without the order of variables, and without Helm's own annotation."""
    for one in found.values():
        annotations = one["metadata"].get("annotations", {})
        for key in KEEP:
            annotations.pop(key, None)
        if not annotations:
            one["metadata"].pop("annotations", None)
        pod = one.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", ()):
            container.get("env", []).sort(key=lambda entry: entry["name"])
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("components", [[], AVAILABLE], ids=["bare", "components"])
def test_the_chart_renders_what_kustomize_renders(overlay: str, components: list[str]) -> None:
    expected = of_kustomize(overlay, components)
    switches = [f"{SWITCHES[name]}.enabled=true" for name in components]
    found = template(
        f'overlay="{overlay}"',
        *switches,
        "podPolicies.enabled=true",
        "metacontroller.install=true",
        "namespaces.release=true",
    )
    # The chart makes the token; with kustomize a person does.
    if TOKEN_PART in components:
        assert len(found.pop(TOKEN)["data"]["token"]) > 40
    assert found.keys() == expected.keys()
    assert _comparable(found) == _comparable(expected)


def test_the_files_of_the_chart_are_up_to_date() -> None:
    # If this fails: make generate.
    assert chart.stale_files(chart.files()) == []


def test_a_stale_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/left.yaml").write_text("")
    monkeypatch.setattr(chart, "CHART", tmp_path)
    monkeypatch.setattr(chart, "FILES", tmp_path / "files")
    assert chart.stale_files({"files/new.yaml": ""}) == ["files/left.yaml", "files/new.yaml"]


def test_every_name_of_the_namespaces_follows_the_values() -> None:
    found = template(
        'overlay="kserve"',
        *(f"{SWITCHES[name]}.enabled=true" for name in AVAILABLE),
        "podPolicies.enabled=true",
        "metacontroller.install=true",
        'metacontroller.namespace="control"',
        "namespaces.release=true",
        'hooks.token.existingSecret="my-token"',
        namespace="models",
    )
    text = json.dumps(list(found.values()))
    for pattern in (
        r'"namespace": "localmodel"',
        r'"namespace": "metacontroller"',
        r"system:serviceaccount:localmodel:",
        r"localmodel-hooks\.localmodel\b",
        r'"kubernetes.io/metadata.name": "metacontroller"',
        r'"localmodel-hooks-token"',
    ):
        assert re.findall(pattern, text) == [], pattern
    assert {("Namespace", "", name) for name in ("models", "control")} <= found.keys()
    assert not {one for one in found if one[0] == "Secret"}


def test_the_alerts_follow_the_namespace_of_the_release() -> None:
    default, other = (
        template("monitoring.enabled=true", namespace=space)["PrometheusRule", space, "localmodel"]
        for space in ("localmodel", "models")
    )
    mentioned = r'(?:namespace="|-n |--namespace[ =])localmodel\b'
    texts = [
        [
            text
            for group in found["spec"]["groups"]
            for rule in group["rules"]
            for text in _texts(rule)
        ]
        for found in (default, other)
    ]
    assert sum(len(re.findall(mentioned, text)) for text in texts[0]) >= 2
    assert not [text for text in texts[1] if re.search(mentioned, text)]
    for before, after in zip(*texts, strict=True):
        assert after == re.sub(
            mentioned, lambda found: found[0].replace("localmodel", "models"), before
        )


def _texts(rule: dict[str, Any]) -> list[str]:
    return [rule["expr"], *rule["annotations"].values()]


def test_roles_of_kubernetes_are_left_alone_on_request() -> None:
    def aggregated(found: Objects) -> set[str]:
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        return {
            label.removeprefix(prefix)
            for one in found.values()
            for label in one["metadata"].get("labels", {})
            if label.startswith(prefix)
        }

    assert aggregated(template()) == {"view", "edit"}
    found = template("aggregatedRoles.enabled=false", "metacontroller.install=true")
    assert aggregated(found) == set()
    assert {("ClusterRole", "", f"localmodel-{name}") for name in ("view", "edit")} <= found.keys()
    # The same by the patch of the page, with kustomize.
    page = (CHECKOUT / "docs/security.md").read_text()
    (block,) = re.findall(
        r"^```yaml\n# kustomization.yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    )
    with kustomization(["deploy/overlays/standalone"], **yaml.safe_load(block)) as folder:
        assert aggregated(objects(kustomize(folder))) == set()


def test_prometheus_finds_what_it_selects_by_a_label() -> None:
    found = template("monitoring.enabled=true", 'monitoring.labels={"release": "stack"}')
    labels = {
        (kind, name): one["metadata"]["labels"]
        for (kind, _, name), one in found.items()
        if one["apiVersion"].startswith("monitoring.coreos.com/")
    }
    assert {kind for kind, _ in labels} == {"PodMonitor", "PrometheusRule"}
    assert {one["release"] for one in labels.values()} == {"stack"}
    assert {one["app.kubernetes.io/part-of"] for one in labels.values()} == {"localmodel"}


def test_the_namespace_of_the_release_may_be_named_metacontroller() -> None:
    found = template(
        "metacontroller.install=true",
        'metacontroller.namespace="localmodel"',
        namespace="metacontroller",
    )
    assert ("DaemonSet", "metacontroller", "localmodel-agent") in found
    assert ("StatefulSet", "localmodel", "metacontroller") in found
    subjects = found["ClusterRoleBinding", "", "metacontroller"]["subjects"]
    assert [one["namespace"] for one in subjects] == ["localmodel"]


def test_metacontroller_and_the_agents_need_namespaces_of_their_own() -> None:
    for space in ("metacontroller", "models"):
        values = ("metacontroller.install=true", f"metacontroller.namespace={json.dumps(space)}")
        settings = [part for one in values for part in ("--set-json", one)]
        done = helm("template", "localmodel", str(CHART), "--namespace", space, *settings)
        assert done.returncode != 0
        assert f"cannot be installed into {space}, the namespace of the release" in done.stderr
    # A Metacontroller that runs in that namespace already is the owner's concern.
    assert template("metacontroller.rights=true", namespace="metacontroller")


def test_the_release_brings_its_own_namespace_only_on_request() -> None:
    spaces = [name for kind, _, name in template() if kind == "Namespace"]
    assert spaces == ["kserve-localmodel-jobs"]
    assert not [one for one in template("namespaces.credentials=false") if one[0] == "Namespace"]


def test_values_leave_out_what_a_person_does_not_want() -> None:
    found = template(
        "networkPolicies.enabled=false", "controllers.enabled=false", "crds.enabled=false"
    )
    kinds = {kind for kind, _, _ in found}
    assert not kinds & {"NetworkPolicy", "CustomResourceDefinition", "CompositeController"}
    # The policies by which pods get models need Kubernetes 1.36.
    assert "MutatingAdmissionPolicy" not in kinds


def test_another_metacontroller_gets_rights_under_another_name() -> None:
    found = template("metacontroller.rights=true", 'metacontroller.serviceAccount="operator"')
    binding = found["ClusterRoleBinding", "", "localmodel-metacontroller"]
    assert binding["roleRef"]["name"] == "localmodel-metacontroller"
    assert [one["name"] for one in binding["subjects"]] == ["operator"]
    assert ("ClusterRole", "", "localmodel-metacontroller") in found
    assert not [key for key in found if key[0] == "StatefulSet" or key[2] == "metacontroller"]


def test_the_hooks_take_calls_of_the_pods_that_the_values_name() -> None:
    labels = [
        template(*values)["NetworkPolicy", "localmodel", "localmodel-hooks"]["spec"]["ingress"][0][
            "from"
        ][0]["podSelector"]["matchLabels"]
        for values in ([], ['metacontroller.podLabels={"app": "my-metacontroller"}'])
    ]
    assert labels == [{"app.kubernetes.io/name": "metacontroller"}, {"app": "my-metacontroller"}]


def test_values_change_the_programs() -> None:
    found = template(
        'hostPath="/data/models"',
        'imagePullSecrets=[{"name": "registry"}]',
        'hooks.image={"repository": "r/hooks", "digest": "sha256:' + "a" * 64 + '"}',
        "hooks.replicas=3",
        'hooks.env={"LOCALMODEL_NAMESPACE_LIMITS": "false"}',
        'hooks.tolerations=[{"key": "control", "operator": "Exists"}]',
        'agent.image={"repository": "r/agent", "tag": "1.2", "pullPolicy": "Never"}',
        'agent.args=["--max-downloads=4"]',
        'agent.env={"LOCALMODEL_VOLUMES": "root", "HF_ENDPOINT": "https://hub.example.com"}',
        'agent.resources={"limits": {"memory": "1Gi"}}',
        'agent.nodeSelector={"pool": "gpu"}',
        "agent.tolerations=[]",
        'agent.podLabels={"team": "ml", "app.kubernetes.io/name": "other"}',
        'agent.podAnnotations={"note": "yes"}',
        "agent.maxUnavailable=1",
        'agent.extraVolumes=[{"name": "limits", "configMap": {"name": "limits"}}]',
        'agent.extraVolumeMounts=[{"name": "limits", "mountPath": "/limits"}]',
        "startupTaint.enabled=true",
        "startupTaint.priority=1000000",
    )
    hooks = found["Deployment", "localmodel", "localmodel-hooks"]["spec"]
    pod = hooks["template"]["spec"]
    (container,) = pod["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert hooks["replicas"] == 3
    assert container["image"] == "r/hooks@sha256:" + "a" * 64
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["tolerations"] == [{"key": "control", "operator": "Exists"}]
    assert env["LOCALMODEL_HOST_PATH"] == "/data/models"
    assert env["LOCALMODEL_NAMESPACE_LIMITS"] == "false"
    assert container["resources"]["requests"], "resources that no value names stay"

    agent = found["DaemonSet", "localmodel", "localmodel-agent"]["spec"]
    pod = agent["template"]["spec"]
    (container,) = pod["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert agent["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 1
    assert container["image"] == "r/agent:1.2"
    assert container["imagePullPolicy"] == "Never"
    assert container["args"] == ["localmodel-agent", "run", "--max-downloads=4"]
    assert env["LOCALMODEL_VOLUMES"] == "root"
    assert env["HF_ENDPOINT"] == "https://hub.example.com"
    assert env["LOCALMODEL_STARTUP_TAINT_PRIORITY"] == "1000000"
    assert len(env) == len(container["env"])
    assert container["resources"] == {"limits": {"memory": "1Gi"}}
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "gpu"}
    assert pod["tolerations"] == []
    labels = agent["template"]["metadata"]["labels"]
    assert (labels["team"], labels["app.kubernetes.io/name"]) == ("ml", "localmodel-agent")
    assert agent["template"]["metadata"]["annotations"]["note"] == "yes"
    paths = {one["name"]: one.get("hostPath", {}).get("path") for one in pod["volumes"]}
    assert paths == {"models": "/data/models", "tmp": None, "limits": None}
    assert container["volumeMounts"][-1] == {"name": "limits", "mountPath": "/limits"}


def test_values_change_metacontroller() -> None:
    found = template(
        "metacontroller.install=true",
        'metacontroller.namespace="control"',
        'metacontroller.image={"repository": "mirror/metacontroller"}',
        'metacontroller.args=["--workers=20"]',
        'metacontroller.resources={"limits": {"memory": "4Gi"}}',
        'metacontroller.nodeSelector={"pool": "infra"}',
        'metacontroller.tolerations=[{"key": "infra", "operator": "Exists"}]',
        'metacontroller.podLabels={"team": "ml"}',
        'metacontroller.podAnnotations={"note": "yes"}',
        'imagePullSecrets=[{"name": "registry"}]',
    )
    before = template("metacontroller.install=true")
    (former,) = before["StatefulSet", "metacontroller", "metacontroller"]["spec"]["template"][
        "spec"
    ]["containers"]
    made = found["StatefulSet", "control", "metacontroller"]["spec"]["template"]
    (container,) = made["spec"]["containers"]
    version = former["image"].rpartition(":")[2]
    assert re.fullmatch(r"v\d+\.\d+\.\d+", version)
    assert container["image"] == f"mirror/metacontroller:{version}"
    assert container["args"] == [*former["args"], "--workers=20"]
    assert container["resources"] == {"limits": {"memory": "4Gi"}}
    assert made["spec"]["nodeSelector"] == {"pool": "infra"}
    assert made["spec"]["tolerations"] == [{"key": "infra", "operator": "Exists"}]
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert made["metadata"]["annotations"] == {"note": "yes"}
    # The hooks take calls of these pods.
    labels = made["metadata"]["labels"]
    policy = found["NetworkPolicy", "localmodel", "localmodel-hooks"]["spec"]
    asked = policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert asked.items() <= labels.items()
    assert labels["app.kubernetes.io/name"] == "metacontroller"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ('overlay="base"', "/overlay"),
        ('hostPath="models"', "/hostPath"),
        ('hooks.replicas="two"', "/hooks/replicas"),
        ("hooks.replicas=0", "/hooks/replicas"),
        ("agent.env={'A': 1}".replace("'", '"'), "/agent/env/A"),
        ('agent.args=["max-downloads=4"]', "/agent/args/0"),
        ('agent.image.digest="sha256:1"', "/agent/image/digest"),
        ('agent.maxUnavailable="0%"', "/agent/maxUnavailable"),
        ("agent.tolerance=[]", "/agent"),
        ('metacontroller.image.tag="v4:1"', "/metacontroller/image/tag"),
        ("startupTaint.priority=0", "/startupTaint/priority"),
        ('monitoring.labels={"release": 1}', "/monitoring/labels/release"),
        ('namespaces.release="yes"', "/namespaces/release"),
        ("Overlay=1", ""),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(value: str, place: str) -> None:
    done = helm("template", "localmodel", str(CHART), "--set-json", value)
    assert done.returncode != 0
    assert f"- at '{place}'" in done.stderr, done.stderr


def test_every_value_has_a_schema_and_a_row_of_the_page() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    page = (CHART / "README.md").read_text()

    def check(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        assert schema["additionalProperties"] is False
        known = set(schema["properties"]) - {"global"}
        assert known == set(values), path
        for key, value in values.items():
            inner = schema["properties"][key]
            assert f"| `{path}{key}" in page
            if isinstance(value, dict) and "properties" in inner:
                check(value, inner, f"{path}{key}.")

    check(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")


def test_the_chart_passes_helms_own_check() -> None:
    for overlay in OVERLAYS:
        done = helm("lint", "--strict", str(CHART), "--set", f"overlay={overlay}")
        assert done.returncode == 0, done.stdout
        assert "[WARNING]" not in done.stdout


def test_the_notes_name_the_namespace_of_the_release(tmp_path: Path) -> None:
    folder = tmp_path / "chart"
    shutil.copytree(CHART, folder)
    # `helm template` does not print the notes: a ConfigMap has them here.
    (folder / "templates/NOTES.txt").rename(folder / "notes.txt")
    (folder / "templates/notes.yaml").write_text(
        'data: {notes: {{ tpl (.Files.Get "notes.txt") . | quote }}}\n'
        "kind: ConfigMap\nmetadata: {name: notes}\n"
    )
    found = template(namespace="models", folder=folder)
    text = found["ConfigMap", "", "notes"]["data"]["notes"]
    assert "localmodel-uninstall --namespace models --models" in text
    assert "-n models rollout status" in text


def test_the_chart_has_the_version_of_localmodel() -> None:
    found = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert {found["version"], found["appVersion"]} == {__version__}
    (container,) = template()["DaemonSet", "localmodel", "localmodel-agent"]["spec"]["template"][
        "spec"
    ]["containers"]
    assert container["image"].endswith(f":{__version__}")
