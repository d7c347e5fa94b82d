"""The API server takes all that is shipped, strictly and without a warning; Helm installs it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from deploy.kube.errors import NotFoundError
from deploy.kube.kinds import CRDS, DAEMON_SETS, NAMESPACES, POLICIES, SECRETS, Kind
from deploy.local.build import ensure_helm
from deploy.local.chart import CHART, COMPONENTS, kustomization, kustomize
from deploy.local.cluster import Cluster
from deploy.local.layout import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

# All tests of this module change one cluster.
pytestmark = pytest.mark.xdist_group("manifests")

AVAILABLE = [name for name in COMPONENTS if (CHECKOUT / "deploy/components" / name).is_dir()]
OPERATOR = CHECKOUT / "tests/e2e/prometheus_operator.yaml"
RELEASE = ("localmodel", str(CHART), "--namespace", "localmodel")
CREDENTIALS = "kserve-localmodel-jobs"
ALL_VALUES = [
    "podPolicies.enabled=true",
    "startupTaint.enabled=true",
    "kubeletConfigz.enabled=true",
    "hooks.token.enabled=true",
    "monitoring.enabled=true",
    "metacontroller.install=true",
]
TOKEN = (SECRETS, "localmodel-hooks-token", "localmodel")
AGENT = (DAEMON_SETS, "localmodel-agent", "localmodel")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose programs do not matter: the tests overwrite the addresses of the hooks."""
    cluster = Cluster(tmp_path_factory.mktemp("manifests") / "local")
    cluster.up(1, metacontroller="standin", run_agents=False, owner_pid=os.getpid())
    try:
        # Of what is beside KServe.
        cluster.kubectl("create", "namespace", "kserve", check=True)
        cluster.kubectl("apply", "--filename", str(OPERATOR), check=True)
        established = ("wait", "--for=condition=Established", "--timeout=60s")
        cluster.kubectl(*established, "--filename", str(OPERATOR), check=True)
        yield cluster
    finally:
        cluster.down()


def apply(cluster: Cluster, manifests: str) -> None:
    """Apply objects as the pages say. Unknown or repeated fields, and warnings, are failures."""
    found = [one for one in yaml.load_all(manifests, yaml.CSafeLoader) if one]
    done = cluster.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--validate=strict", "--filename=-"),
        stdin=yaml.safe_dump_all(found),
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout.count("serverside-applied") == len(found)


@pytest.mark.parametrize(
    "folder",
    [
        "crds/manifests",
        "metacontroller",
        "deploy/overlays/standalone",
        "deploy/overlays/kserve",
        "deploy/overlays/kserve/beside",
        "deploy/overlays/kserve/takeover",
        "deploy/pods",
        "deploy/components/hooks-token/controllers",
    ],
)
def test_a_kustomization_is_applied_without_a_warning(cluster: Cluster, folder: str) -> None:
    apply(cluster, kustomize(CHECKOUT / folder))


@pytest.mark.parametrize("overlay", ["standalone", "kserve"])
def test_an_overlay_with_all_components_is_applied_without_a_warning(
    cluster: Cluster, overlay: str
) -> None:
    components = [f"deploy/components/{name}" for name in AVAILABLE]
    with kustomization([f"deploy/overlays/{overlay}"], components) as folder:
        apply(cluster, kustomize(folder))


@pytest.mark.parametrize("overlay", ["standalone", "kserve"])
def test_the_chart_is_applied_without_a_warning(cluster: Cluster, overlay: str) -> None:
    switches = [*ALL_VALUES, f"overlay={overlay}"]
    apply(cluster, helm(cluster, "template", *RELEASE, *_set(switches)))


def test_a_warning_or_an_unknown_field_is_a_failure(cluster: Cluster) -> None:
    deployment = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "strict", "namespace": "default"},
        "date": {},
    }
    with pytest.raises(AssertionError, match="field not declared in schema"):
        apply(cluster, yaml.safe_dump(deployment))
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": "strict", "namespace": "default"},
        "spec": {"selector": {}, "endpoints": []},
    }
    with pytest.raises(AssertionError, match=r"spec\.endpoints: field not declared"):
        apply(cluster, yaml.safe_dump(monitor))


@pytest.mark.parametrize("overlay", ["standalone", "kserve"])
@pytest.mark.parametrize(
    ("kind", "level", "violations"),
    [
        ("Deployment", "restricted", []),
        # The directory of the models, and nothing else.
        ("DaemonSet", "baseline", ['hostPath volumes (volume "models")']),
    ],
)
def test_no_program_needs_more_of_pod_security(
    cluster: Cluster, overlay: str, kind: str, level: str, violations: list[str]
) -> None:
    space = f"security-{level}"
    label = f"pod-security.kubernetes.io/warn={level}"
    cluster.kubectl("create", "namespace", space)
    cluster.kubectl("label", "namespace", space, label, "--overwrite", check=True)
    components = [f"deploy/components/{name}" for name in AVAILABLE]
    with kustomization([f"deploy/overlays/{overlay}"], components) as folder:
        rendered = yaml.load_all(kustomize(folder), yaml.CSafeLoader)
        (found,) = (one for one in rendered if one["kind"] == kind)
    found["metadata"]["namespace"] = space
    done = cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(found))
    assert done.returncode == 0, done.stderr
    warned = done.stderr.partition(f'would violate PodSecurity "{level}:latest": ')[2].strip()
    assert [one for one in warned.split("; ") if one] == violations


def test_helm_installs_upgrades_and_uninstalls(cluster: Cluster) -> None:
    """Helm takes over what kustomize has applied, and at the end leaves what holds the models."""
    api = cluster.api
    # What another Metacontroller's owner has applied is not the release's.
    switches = [value for value in ALL_VALUES if "metacontroller" not in value]
    helm(
        cluster,
        *("upgrade", "--install", *RELEASE, "--take-ownership", "--force-conflicts"),
        *_set(switches),
    )
    token = api.get(*TOKEN)["data"]["token"]
    before = api.get(*AGENT)
    assert before["metadata"]["annotations"]["meta.helm.sh/release-name"] == "localmodel"

    switches += ["agent.args={--max-downloads=4}", "networkPolicies.enabled=false"]
    helm(cluster, "upgrade", *RELEASE, "--force-conflicts", *_set(switches))
    (container,) = api.get(*AGENT)["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "--max-downloads=4"
    assert api.get(*TOKEN)["data"]["token"] == token
    policies = Kind("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", namespaced=True)
    assert not api.list(policies)

    helm(cluster, "uninstall", "localmodel", "--namespace", "localmodel", "--wait")
    for gone in (TOKEN, AGENT, (POLICIES, "localmodel-node-status")):
        with pytest.raises(NotFoundError):
            api.get(*gone)
    crds = {one["metadata"]["name"] for one in api.list(CRDS)}
    assert "localmodelcaches.serving.kserve.io" in crds
    assert api.find(NAMESPACES, CREDENTIALS)

    # A new install finds the CRDs that were kept, and makes the namespace of the credentials.
    cluster.kubectl("delete", "namespace", CREDENTIALS, check=True)
    helm(cluster, "install", *RELEASE)
    annotations = api.get(NAMESPACES, CREDENTIALS)["metadata"]["annotations"]
    assert annotations["meta.helm.sh/release-name"] == "localmodel"
    helm(cluster, "upgrade", *RELEASE)
    helm(cluster, "uninstall", "localmodel", "--namespace", "localmodel", "--wait")
    # With the secrets of people in it.
    assert not api.get(NAMESPACES, CREDENTIALS)["metadata"].get("deletionTimestamp")


def test_kubectl_deletes_all_programs_by_the_commands_that_uninstall_prints(
    cluster: Cluster,
) -> None:
    folders = ["deploy/overlays/standalone", "deploy/pods", "metacontroller"]
    components = [f"deploy/components/{name}" for name in AVAILABLE]
    with kustomization(folders, components) as folder:
        manifests = kustomize(folder)
    apply(cluster, manifests)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deploy.takeover.uninstall", "--models=keep", "--apply"),
            f"--kubeconfig={cluster.kubeconfig}",
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (commands,) = re.findall(r"then delete the programs: (.*)$", done.stdout, re.MULTILINE)
    steps = commands.removesuffix(" if it was applied").split("; ")
    assert len(steps) == 4
    for step in steps:
        program, *arguments = shlex.split(step.removeprefix("and "))
        assert program == "kubectl"
        cluster.kubectl(*arguments, cwd=CHECKOUT, check=True)
    left = ("get", "--ignore-not-found", "--output=name", "--filename=-")
    found = cluster.kubectl(*left, stdin=manifests, check=True).stdout.split()
    assert found == [f"namespace/{CREDENTIALS}"]


def helm(cluster: Cluster, *arguments: str) -> str:
    """Run Helm as the administrator. Returns what it prints."""
    done = subprocess.run(
        [ensure_helm(), *arguments],
        env=os.environ | {"KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "arning" not in done.stderr
    return done.stdout


def _set(values: list[str]) -> list[str]:
    return [part for value in values for part in ("--set", value)]
