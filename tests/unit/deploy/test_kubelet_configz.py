"""The component with which agents read the kubelet's thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from agent.commands.flags import parse

if TYPE_CHECKING:
    import pytest

TREE = Path(__file__).parents[3]
COMPONENT = TREE / "deploy/components/kubelet-configz"
AGENT = TREE / "deploy/base/agent.yaml"


def _documents(file: Path) -> list[Any]:
    return list(yaml.safe_load_all(file.read_text()))


def test_it_grants_the_configuration_of_kubelets_and_nothing_else() -> None:
    role, binding = _documents(COMPONENT / "rbac.yaml")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes/configz"], "verbs": ["get"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "localmodel-agent", "namespace": "localmodel"}
    ]


def test_it_names_the_kubelet_of_the_agents_own_node(monkeypatch: pytest.MonkeyPatch) -> None:
    (patch,), (base,) = _documents(COMPONENT / "agent.yaml"), _documents(AGENT)
    assert patch["metadata"].items() <= base["metadata"].items()
    (patched,), (container,) = (
        one["spec"]["template"]["spec"]["containers"] for one in (patch, base)
    )
    assert patched["name"] == container["name"]
    # The first defines what the second uses.
    address, url = patched["env"]
    assert address["valueFrom"]["fieldRef"]["fieldPath"] == "status.hostIP"
    monkeypatch.setenv(url["name"], url["value"].replace(f"$({address['name']})", "10.0.0.7"))
    options = parse(["run", "--node-name", "n", "--root", "/r"])
    assert options.kubelet_configz == "https://10.0.0.7:10250/configz"
