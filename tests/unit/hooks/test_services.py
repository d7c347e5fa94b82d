"""Which services use a cache, and whose claims their pods mount."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from hooks.services import services_of
from hooks.settings import Settings
from hooks.users import User, Users
from tests.unit.hooks.stored import cache_in_two_groups

SETTINGS = {
    "LOCALMODEL_SERVICE_KINDS": "InferenceService.serving.kserve.io/v1beta1,"
    "LLMInferenceService.serving.kserve.io/v1alpha2"
}
KINDS = Settings.from_environment(SETTINGS).service_kinds
ISVC, LLM = (f"{kind.kind}.{kind.api_version}" for kind in KINDS)
LABEL = "internal.serving.kserve.io/localmodel"
NAMESPACE_LABEL = f"{LABEL}-namespace"
ADAPTERS = f"{LABEL}-lora"
CLAIM = f"{LABEL}-pvc-name"
GROUP = "serving.kserve.io/nodegroup"
ONE = '{"sql": {"cache": "llama"}}'


def _service(
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    namespace: str = "team-a",
) -> Raw:
    metadata = {
        "name": "chat",
        "namespace": namespace,
        "labels": labels,
        "annotations": annotations,
    }
    return Raw(json.dumps({"metadata": metadata, "spec": {"model": {"uri": "hf://a/b"}}}).encode())


def _users(cache: Any, service: Raw, kind: str = LLM) -> tuple[User, ...]:
    related: dict[str, dict[str, Raw]] = {ISVC: {}, LLM: {}} | {kind: {"team-a/chat": service}}
    return services_of(cache, KINDS, related)


def _groups(service: Raw, cache: Any = None) -> tuple[str, ...] | None:
    """The groups whose claims the service mounts; None: the service does not use the cache."""
    users = _users(cache or cache_in_two_groups(), service)
    return users[0].groups if users else None


@pytest.mark.parametrize(
    ("annotations", "groups"),
    [
        ({ADAPTERS: ONE}, ("gpu",)),
        ({ADAPTERS: ONE, GROUP: "cpu"}, ("cpu",)),
        ({ADAPTERS: ONE, GROUP: "none-of-them"}, ()),
        # Older versions of KServe write the claim that the pods mount.
        ({ADAPTERS: '{"a": {"cache": "llama", "pvcName": "llama-cpu"}}'}, ("cpu",)),
        ({ADAPTERS: '{"a": {"cache": "llama", "pvcName": "llama-gone"}}'}, ("gpu",)),
        ({ADAPTERS: '{"a": {"cache": "llama", "pvcName": 7}}'}, ("gpu",)),
        ({ADAPTERS: '{"a": {"cache": "llama", "later": [{}]}}'}, ("gpu",)),
        ({ADAPTERS: '{"a": {"Cache": "llama", "namespace": null}}'}, ("gpu",)),
        ({ADAPTERS: '{"a": {"cache": "qwen"}, "b": {"cache": "llama"}}'}, ("gpu",)),
        ({ADAPTERS: '{"a": {"cache": "qwen"}}'}, None),
        ({ADAPTERS: '{"a": {"cache": "llama", "namespace": "team-a"}}'}, None),
        ({ADAPTERS: '{"a": {"cache": ""}, "b": {}, "c": null}'}, None),
        ({ADAPTERS: "{}"}, None),
        ({ADAPTERS: "null"}, None),
        ({ADAPTERS: ""}, None),
        ({}, None),
        ({ADAPTERS: ONE, "serving.kserve.io/disable-localmodel": ""}, None),
    ],
)
def test_an_adapters_cache_is_used_and_has_a_claim(
    annotations: dict[str, str], groups: tuple[str, ...] | None
) -> None:
    assert _groups(_service(annotations)) == groups


@pytest.mark.parametrize(
    "text",
    [
        '{"a":',
        "not JSON",
        " ",
        '{"a": {"cache": "llama"}} {}',
        '["llama"]',
        '"llama"',
        '{"a": "llama"}',
        '{"a": ["llama"]}',
        '{"a": {"cache": 7}}',
        '{"a": {"cache": {"name": "llama"}}}',
        '{"a": {"cache": "llama", "namespace": false}}',
        '{"a":' + "[" * 50_000,
    ],
)
def test_adapters_that_cannot_be_read_hold_every_cache_and_get_no_claim(text: str) -> None:
    service = _service({ADAPTERS: text})
    assert _groups(service) == ()
    assert _groups(service, cache_in_two_groups("team-a")) == ()
    # Services of other namespaces cannot use a LocalModelNamespaceCache.
    assert _groups(service, cache_in_two_groups("team-b")) is None
    # A claim that pods mount is still desired.
    assert _groups(_service({ADAPTERS: text}, {LABEL: "llama"})) == ("gpu",)


def test_adapters_of_a_namespaces_cache_are_its_services_alone() -> None:
    annotations = {ADAPTERS: '{"a": {"cache": "llama", "namespace": "team-a"}}'}
    cache = cache_in_two_groups("team-a")
    assert _groups(_service(annotations), cache) == ("gpu",)
    assert _groups(_service(annotations, namespace="team-b"), cache) is None
    assert _groups(_service({ADAPTERS: ONE}), cache) is None


def test_a_service_with_a_cache_as_base_and_as_adapter_counts_once() -> None:
    users = _users(
        cache_in_two_groups(), _service({ADAPTERS: ONE, CLAIM: "llama-cpu"}, {LABEL: "llama"})
    )
    assert [one.groups for one in users] == [("cpu", "gpu")]
    listed = Users.listed(users, ()).llm_inference_services
    assert [(one.namespace, one.name) for one in listed or ()] == [("team-a", "chat")]


def test_the_base_counts_whatever_the_adapters_are() -> None:
    adapters = {ADAPTERS: '{"a": {"cache": "qwen"}}'}
    assert _groups(_service(adapters, {LABEL: "llama"})) == ("gpu",)
    assert _groups(_service(adapters, {LABEL: "llama", NAMESPACE_LABEL: "team-a"})) is None
    assert _groups(_service(adapters, {LABEL: "llama", NAMESPACE_LABEL: ""})) is None
    own = {LABEL: "llama", NAMESPACE_LABEL: "team-a"}
    assert _groups(_service(adapters, own), cache_in_two_groups("team-a")) == ("gpu",)
    assert _groups(_service(adapters, own, "team-b"), cache_in_two_groups("team-a")) is None


def test_a_cache_whose_name_is_no_label_can_be_an_adapters() -> None:
    cache = cache_in_two_groups(name="m" * 64)
    service = _service({ADAPTERS: json.dumps({"a": {"cache": "m" * 64}})})
    assert _groups(service, cache) == ("gpu",)
    # Metacontroller is not asked for InferenceServices then, and sends none.
    assert services_of(cache, KINDS, {LLM: {"team-a/chat": service}})


def test_only_llm_services_have_adapters() -> None:
    assert _users(cache_in_two_groups(), _service({ADAPTERS: ONE}), ISVC) == ()
    assert _users(cache_in_two_groups(), _service({ADAPTERS: "{"}), ISVC) == ()


@pytest.mark.parametrize("kind", [ISVC, LLM])
def test_a_claim_that_kserve_has_written_down_counts_before_the_order_of_groups(kind: str) -> None:
    # The pods mount that claim, also after the cache's first group has changed.
    users = _users(cache_in_two_groups(), _service({CLAIM: "llama-cpu"}, {LABEL: "llama"}), kind)
    assert [one.groups for one in users] == [("cpu",)]
    users = _users(cache_in_two_groups(), _service({CLAIM: "llama-gone"}, {LABEL: "llama"}), kind)
    assert [one.groups for one in users] == [("gpu",)]
