"""The steps of `localmodel-uninstall` and their order, from objects of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from deploy.kube.kinds import COMPOSITES, NODES, Ref
from deploy.takeover import names
from deploy.takeover.objects import is_empty
from deploy.takeover.steps import Delete, DropFinalizers, Empty, Merge
from deploy.takeover.to_kserve import LocalmodelObjects
from deploy.takeover.to_nothing import plan_uninstall
from deploy.takeover.uninstall import main

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject
    from deploy.takeover.steps import Runbook

OURS, OURS_SPACED, OURS_GROUPS = names.FINALIZERS
WARM = "localmodel.serving.kserve.io/llama"
MEMBER = "localmodelnodegroup.serving.kserve.io/gpu"
CONTROLLER = Ref(COMPOSITES, "localmodel-caches")


def _object(kind: str, name: str, namespace: str = "", **fields: Any) -> KubeObject:
    metadata = {"name": name, "uid": f"uid-{name}", **fields.pop("metadata", {})}
    if namespace:
        metadata["namespace"] = namespace
    return {"kind": kind, "metadata": metadata, "spec": {}, **fields}


def _cluster(**changes: Any) -> LocalmodelObjects:
    model = {"name": "llama", "key": "k", "state": "Downloaded"}
    found: dict[str, Any] = {
        "controllers": (CONTROLLER,),
        "caches": (
            _object("LocalModelCache", "llama", metadata={"finalizers": [OURS, "other"]}),
            _object(
                "LocalModelNamespaceCache", "small", "team", metadata={"finalizers": [OURS_SPACED]}
            ),
        ),
        "groups": (_object("LocalModelNodeGroup", "gpu", metadata={"finalizers": [OURS_GROUPS]}),),
        "placements": (_object("LocalModelPlacement", "gpu"),),
        "nodes": (_object("Node", "n", metadata={"labels": {WARM: "k", MEMBER: "", "a": "b"}}),),
        "model_nodes": (
            _object(
                "LocalModelNode",
                "n",
                spec={"localModels": [model]},
                status={"models": [model]},
            ),
        ),
    }
    return LocalmodelObjects(**{**found, **changes})


def _plan(observed: LocalmodelObjects, *, remove: bool) -> Runbook:
    return plan_uninstall(observed, "localmodel", remove=remove)


def test_models_that_stay_keep_all_that_leads_to_them() -> None:
    actions = [step.action for step in _plan(_cluster(), remove=False).steps]
    assert actions[0] == Delete(CONTROLLER)
    assert all(isinstance(action, DropFinalizers) for action in actions[1:])
    assert [action.finalizers for action in actions[1:] if isinstance(action, DropFinalizers)] == [
        (OURS,),
        (OURS_SPACED,),
        (OURS_GROUPS,),
    ]


def test_nodes_are_empty_before_anything_that_a_person_made_is_deleted() -> None:
    actions = [step.action for step in _plan(_cluster(), remove=True).steps]
    assert actions[:2] == [Delete(CONTROLLER), Empty()]
    deleted = [str(action.ref) for action in actions[2:] if isinstance(action, Delete)]
    assert deleted == [
        "LocalModelCache llama",
        "LocalModelNamespaceCache team/small",
        "LocalModelNodeGroup gpu",
        "LocalModelPlacement gpu",
        "LocalModelNode n",
    ]
    assert actions[-1] == Merge(
        Ref(NODES, "n"), {"metadata": {"labels": {WARM: None, MEMBER: None}}}
    )


def test_nothing_is_left_to_do_when_all_is_done() -> None:
    for remove in (True, False):
        assert not _plan(LocalmodelObjects(), remove=remove).steps


def test_a_cache_that_a_service_uses_is_for_a_person() -> None:
    used = _object(
        "LocalModelCache",
        "llama",
        status={"inferenceServices": [{"namespace": "team", "name": "chat"}]},
    )
    plan = _plan(_cluster(caches=(used,)), remove=True)
    assert not plan.steps
    assert "team/chat" in plan.first[0]
    # Models that stay are of use to it.
    assert _plan(_cluster(caches=(used,)), remove=False).steps


def test_a_model_that_pods_use_is_for_a_person() -> None:
    model = {"name": "small", "namespace": "team", "key": "k", "pods": 2}
    node = _object("LocalModelNode", "n", status={"models": [model]})
    plan = _plan(_cluster(model_nodes=(node,)), remove=True)
    assert not plan.steps
    assert "the node n that use team/small" in plan.first[0]


def test_a_cache_that_kserve_imports_is_left_alone() -> None:
    imported = _object(
        "LocalModelNamespaceCache",
        "big",
        "team",
        metadata={"finalizers": [OURS_SPACED]},
        spec={"pvcRef": {"name": "claim"}},
    )
    for remove in (True, False):
        plan = _plan(LocalmodelObjects(caches=(imported,)), remove=remove)
        assert not plan.steps
        assert "team/big" in plan.notes[0]


def test_the_programs_of_a_release_are_helms_to_delete() -> None:
    annotations = {names.HELM_RELEASE: "lm", names.HELM_NAMESPACE: "models"}
    agent = _object("DaemonSet", names.AGENT, metadata={"annotations": annotations})
    notes = _plan(_cluster(agent=agent), remove=False).notes
    assert any("helm uninstall lm --namespace models" in note for note in notes)
    assert not any("kubectl delete namespace" in note for note in notes)


@pytest.mark.parametrize(
    ("listed", "status", "empty"),
    [
        ([], {}, True),
        ([{"name": "a"}], {}, False),
        ([], {"models": [], "observedGeneration": 3}, True),
        ([], {"models": [], "observedGeneration": 2}, False),
        ([], {"models": [{"state": "Removing"}], "observedGeneration": 3}, False),
    ],
)
def test_a_node_is_empty_when_its_agent_says_so(
    listed: list[KubeObject], status: KubeObject, empty: bool
) -> None:
    node = _object(
        "LocalModelNode",
        "n",
        metadata={"generation": 3},
        spec={"localModels": listed},
        status=status,
    )
    assert is_empty(node) is empty


def test_what_happens_to_the_models_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "--models" in capsys.readouterr().err
