"""An upgrade of KServe's chart puts its CRDs back. Named so that it comes last."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from deploy.kube.kinds import CACHES, CLAIMS, CRDS, LOCAL_MODEL_NODES, PLACEMENTS
from deploy.local.product import META
from tests.e2e.kserve import SECONDS, KServeWorld
from tests.e2e.kserve_crds import KSERVE, kserves, ours, refusal, replace, unguarded

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject


def test_crds_that_drop_our_fields_are_refused(kserve: KServeWorld) -> None:
    assert [plural for plural in KSERVE if not refusal(kserve.api, kserves(plural))] == []
    told = refusal(kserve.api, kserves("localmodelnodes"))
    assert "it would drop" in told
    assert "spec.nodeReady" in told
    assert "kubectl delete validatingadmissionpolicybinding localmodel-crds" in told
    # What keeps our fields comes through, an upgrade of localmodel among it.
    for plural in KSERVE:
        replace(kserve.api, ours(plural))
        told = kserve.not_deleted(CRDS, ours(plural)["metadata"]["name"])
        assert "deletes every object of its kind" in told
    # And from one that had a field which is gone.
    former = ours("localmodelcaches")
    spec = former["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["pvcRef"] = {"type": "string"}
    replace(kserve.api, former)
    replace(kserve.api, ours("localmodelcaches"))
    # Others' CRDs are not its business.
    kserve.delete(CRDS, kserve.make(_others_crd())["metadata"]["name"])


def test_crds_that_drop_our_fields_stop_the_hooks(kserve: KServeWorld) -> None:
    kserve.kserve_group("back", "node-1")
    kserve.kserve_cache("back", "back")
    kserve.service("back-a", "chat", "back")
    kserve.wait_condition("back", "AllBound", kind="ClaimsBound")
    kserve.until(lambda: _listed(kserve), "node-1 to list it", SECONDS)
    # The last that comes of a service: all is at rest then.
    kserve.until(lambda: _referenced(kserve), "the plan to be whole", SECONDS)
    before = kserve.api.get(PLACEMENTS, "back")["spec"]
    log = kserve.cluster.logs_dir / "metacontroller.log"
    with ExitStack() as undone:
        undone.enter_context(unguarded(kserve.api))
        for plural in KSERVE:
            replace(kserve.api, kserves(plural))
            undone.callback(replace, kserve.api, ours(plural))
        kserve.until(
            lambda: "key" not in kserve.status("back"), "the fields to be dropped", SECONDS
        )
        # Watches of the former schema go on for a second.
        time.sleep(3)
        start = log.stat().st_size
        kserve.patch(CACHES, "back", {"spec": {"modelSize": "2Mi"}})
        kserve.until(
            lambda: "came without" in log.read_text(errors="replace")[start:],
            "the hooks to say why they refuse",
            SECONDS,
        )
        told = log.read_text(errors="replace")[start:]
        assert "is not localmodel's, and drops its fields" in told
        # Nothing is changed meanwhile.
        assert kserve.api.get(PLACEMENTS, "back")["spec"] == before
        assert kserve.find(CLAIMS, "back-back", "back-a")
        assert _listed(kserve)

    def is_well() -> bool:
        plan = kserve.api.get(PLACEMENTS, "back")["spec"]["models"]
        status = kserve.status("back")
        sizes = [model["modelSize"] for model in plan]
        return sizes == ["2Mi"] and status.get("observedGeneration", 0) >= 2

    # Metacontroller's watches may go on from where they were, without the objects as they are now.
    kserve.cluster.kill(META)
    # A kind that was away is found again by looking.
    kserve.until(is_well, "all to go on once our CRDs are back", 120)
    kserve.wait_condition("back", "AllBound", kind="ClaimsBound")


def _others_crd() -> KubeObject:
    names = {"plural": "things", "singular": "thing", "kind": "Thing"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "apiVersion": CRDS.api_version,
        "kind": CRDS.name,
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": names,
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


def _listed(kserve: KServeWorld) -> list[str]:
    node = kserve.find(LOCAL_MODEL_NODES, "node-1") or {"spec": {}}
    return [m["modelName"] for m in node["spec"].get("localModels", ()) if m["modelName"] == "back"]


def _referenced(kserve: KServeWorld) -> bool:
    plan = kserve.find(PLACEMENTS, "back") or {"spec": {}}
    return [model.get("referenced", False) for model in plan["spec"].get("models", ())] == [True]
