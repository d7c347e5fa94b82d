"""LoRA adapters of LLMInferenceServices: KServe notes their caches in an annotation alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from deploy.kube.kinds import CACHES, CLAIMS, NAMESPACE_CACHES, PLACEMENTS
from tests.e2e.kserve import ISVCS, LLM_ISVCS, SECONDS, KServeWorld

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject

USERS = "llmInferenceServices"
ADAPTERS = "internal.serving.kserve.io/localmodel-lora"


def _service(
    kserve: KServeWorld, namespace: str, adapters: str | None, base: str = "", **annotations: str
) -> None:
    """Make or change a service as KServe's webhook leaves one whose adapters have caches."""
    kserve.space(namespace)
    metadata: KubeObject = {"name": "chat", "namespace": namespace}
    if base:
        metadata["labels"] = {"internal.serving.kserve.io/localmodel": base}
    noted = {} if adapters is None else {ADAPTERS: adapters}
    users = {f"serving.kserve.io/{key}": value for key, value in annotations.items()}
    kserve.make(
        {
            "apiVersion": LLM_ISVCS.api_version,
            "kind": LLM_ISVCS.name,
            "metadata": metadata | {"annotations": noted | users},
            "spec": {"model": {"uri": "hf://org/base"}},
        }
    )


def _named(cache: str, namespace: str = "") -> str:
    entry = {"cache": cache} | ({"namespace": namespace} if namespace else {})
    return json.dumps({"sql": entry})


def test_an_adapters_cache_is_used_as_a_models_is(kserve: KServeWorld) -> None:
    kserve.kserve_group("lora", "node-3")
    kserve.kserve_group("other", "node-2")
    kserve.kserve_cache("adapter", "lora", "other")
    _service(kserve, "lora-a", _named("adapter"))
    _service(kserve, "lora-b", _named("adapter"), nodegroup="other")
    kserve.wait_bound("lora-a", "adapter-lora")
    kserve.wait_bound("lora-b", "adapter-other")
    assert kserve.find(CLAIMS, "adapter-other", "lora-a") is None
    kserve.wait_users("adapter", "lora-a/chat", "lora-b/chat", field=USERS)
    assert "LLMInferenceService lora-a/chat" in kserve.not_deleted(CACHES, "adapter")

    def referenced() -> list[bool]:
        plan = kserve.find(PLACEMENTS, "lora") or {"spec": {}}
        return [model.get("referenced", False) for model in plan["spec"].get("models", ())]

    kserve.until(lambda: referenced() == [True], "the plan to say so", SECONDS)

    # Another adapter: what is no more used may go.
    kserve.kserve_cache("adapter-2", "lora")
    _service(kserve, "lora-a", _named("adapter-2"))
    kserve.wait_bound("lora-a", "adapter-2-lora")
    kserve.wait_gone("lora-a", "adapter-lora")
    kserve.wait_users("adapter", "lora-b/chat", field=USERS)
    _service(kserve, "lora-b", _named("adapter"), **{"disable-localmodel": ""})
    kserve.wait_users("adapter", field=USERS)
    kserve.delete(CACHES, "adapter")
    kserve.wait_gone("lora-b", "adapter-other")


def test_base_and_adapters_may_be_of_different_caches_and_of_the_same(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    for cache in ("both-base", "both-lora"):
        kserve.kserve_cache(cache, "first")
    _service(kserve, "both", _named("both-lora"), base="both-base")
    for cache in ("both-base", "both-lora"):
        kserve.wait_users(cache, "both/chat", field=USERS)
        kserve.wait_bound("both", f"{cache}-first")
    _service(kserve, "both", _named("both-base"), base="both-base")
    kserve.wait_users("both-base", "both/chat", field=USERS)
    kserve.wait_gone("both", "both-lora-first")
    # The adapter goes, and the model is still used.
    _service(kserve, "both", None, base="both-base")
    kserve.service("both", "later", "both-base", resource=ISVCS)
    kserve.wait_users("both-base", "both/later")
    kserve.wait_users("both-base", "both/chat", field=USERS)


def test_an_adapter_of_a_namespaces_cache_is_of_its_services_alone(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("own-lora", "first")
    kserve.kserve_cache("own-lora", "first", namespace="own")
    _service(kserve, "own", _named("own-lora", "own"))
    _service(kserve, "own-other", _named("own-lora", "own"))
    kserve.wait_users("own-lora", "own/chat", namespace="own", field=USERS)
    assert "own/chat" in kserve.not_deleted(NAMESPACE_CACHES, "own-lora", "own")
    assert USERS not in kserve.status("own-lora")
    _service(kserve, "own-other", _named("own-lora"))
    kserve.wait_users("own-lora", "own-other/chat", field=USERS)
    kserve.wait_bound("own-other", "own-lora-first")


def test_adapters_that_cannot_be_read_hold_every_cache(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    for cache in ("held-1", "held-2"):
        kserve.kserve_cache(cache, "first")
    _service(kserve, "held", '{"sql": ')
    try:
        for cache in ("held-1", "held-2"):
            kserve.wait_users(cache, "held/chat", field=USERS)
            refusal = kserve.not_deleted(CACHES, cache)
            assert "LLMInferenceService held/chat" in refusal
            assert f"{ADAPTERS} cannot be read" in refusal
        assert not kserve.api.list(CLAIMS, "held")
    finally:
        kserve.delete(LLM_ISVCS, "chat", "held")
    for cache in ("held-1", "held-2"):
        kserve.wait_users(cache, field=USERS)
        kserve.delete(CACHES, cache)
