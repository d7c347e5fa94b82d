"""The decisions of `localmodel-takeover` take time in proportion to the objects of the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from deploy.takeover import names, to_kserve, to_localmodel
from deploy.takeover.to_kserve import plan_back
from deploy.takeover.to_localmodel import plan_takeover
from hooks.naming import GROUP_LABEL_DOMAIN
from tests.unit.agent.growth import assert_grows_no_faster_than_its_input
from tests.unit.deploy.test_takeover import CRDS, JOBS, KSERVES, OURS, TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.kube.kinds import KubeObject


def _objects(n: int, kind: str, prefix: str, **fields: Any) -> tuple[KubeObject, ...]:
    metadata = fields.pop("metadata", {})
    return tuple(
        {
            "kind": kind,
            "metadata": {"name": f"{prefix}{i}", "uid": f"{prefix}{i}", **metadata},
            "spec": {},
            **fields,
        }
        for i in range(n)
    )


def _caches(n: int, **metadata: Any) -> tuple[KubeObject, ...]:
    return _objects(
        n, "LocalModelCache", "model-", metadata=metadata, spec={"nodeGroups": ["group-0"]}
    )


def _groups(n: int) -> tuple[KubeObject, ...]:
    spec = {"persistentVolumeSpec": TEMPLATE}
    return _objects(n, "LocalModelNodeGroup", "group-", spec=spec)


def _downloads(n: int, *, mounted: bool) -> to_localmodel.KServeObjects:
    """`n` caches, groups, volumes, claims, pods and Jobs."""
    volumes: dict[str, KubeObject] = {}
    claims, pods = [], []
    for i in range(n):
        claim, volume = f"model-{i}-group-{i}", f"model-{i}-group-{i}-download"
        spec = TEMPLATE | {"claimRef": {"namespace": JOBS, "name": claim}}
        volumes[volume] = {"metadata": {"name": volume, "uid": volume}, "spec": spec}
        claims.append({"metadata": {"name": claim, "uid": claim}, "spec": {"volumeName": volume}})
        sources = [{"persistentVolumeClaim": {"claimName": claim}}] if mounted else []
        pods.append({"metadata": {"name": f"pod-{i}"}, "spec": {"volumes": sources}})
    return to_localmodel.KServeObjects(
        "kserve",
        JOBS,
        crds=CRDS,
        caches=_caches(n, finalizers=[KSERVES, OURS]),
        groups=_groups(n),
        claims=tuple(claims),
        volumes=volumes,
        job_pods=tuple(pods),
        jobs=_objects(n, "Job", "job-"),
    )


@pytest.mark.parametrize("mounted", [True, False])
def test_takeover(mounted: bool) -> None:
    def prepare(n: int) -> Callable[[], object]:
        seen = _downloads(n, mounted=mounted)
        plan = plan_takeover(seen)
        assert len(plan.notes if mounted else plan.steps) >= n
        return lambda: plan_takeover(seen)

    assert_grows_no_faster_than_its_input(prepare)


def test_way_back() -> None:
    def prepare(n: int) -> Callable[[], object]:
        labels = {"labels": {f"{GROUP_LABEL_DOMAIN}/gpu": "true"}}
        seen = to_kserve.LocalmodelObjects(
            caches=_caches(n, finalizers=[names.FINALIZERS[0]]),
            groups=_groups(n),
            placements=_objects(n, "LocalModelPlacement", "placement-"),
            nodes=_objects(n, "Node", "node-"),
            model_nodes=_objects(n, "LocalModelNode", "node-", metadata=labels),
        )
        assert len(plan_back(seen).steps) >= 3 * n
        return lambda: plan_back(seen)

    assert_grows_no_faster_than_its_input(prepare)
