"""The request of a new claim, and the condition if something refuses the claim."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from hooks.app import create_app
from hooks.settings import Settings
from tests.fixtures import load

SHORT = "caches/sync/claims-for-namespaces"
KSERVE = "caches/sync/kserve-form-with-mount-options"
BOUND = "caches/sync/claims-are-bound"
NOW = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)
GROUP = "LocalModelNodeGroup.serving.kserve.io/v1alpha1"
ADMISSION = "admissionregistration.k8s.io/v1"


def _sync(request: dict[str, Any], controller: str = "caches") -> dict[str, Any]:
    client = create_app(Settings(), clock=lambda: NOW).test_client()
    response = client.post(f"/{controller}/sync", json=request)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = json.loads(response.text)
    return answer


def _asked(answer: dict[str, Any], namespace: str = "team-a") -> str:
    (claim,) = (
        child
        for child in answer["children"]
        if child["kind"] == "PersistentVolumeClaim" and child["metadata"]["namespace"] == namespace
    )
    return str(claim["spec"]["resources"]["requests"]["storage"])


def _bound(answer: dict[str, Any]) -> dict[str, Any]:
    (found,) = (c for c in answer["status"]["conditions"] if c["type"] == "ClaimsBound")
    return dict(found)


def _relate(request: dict[str, Any], *objects: dict[str, Any]) -> dict[str, Any]:
    for obj in objects:
        metadata = obj["metadata"]
        space = metadata.get("namespace")
        key = f"{space}/{metadata['name']}" if space else metadata["name"]
        kind = f"{obj['kind']}.{obj['apiVersion']}"
        request["related"].setdefault(kind, {})[key] = obj
    return request


def _limit(name: str = "sizes", namespace: str = "team-a", **bounds: str) -> dict[str, Any]:
    limits = {which: {"storage": bound} for which, bound in bounds.items()}
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "limits": [
                {"type": "Container", "max": {"memory": "1Ki", "storage": "1"}},
                {"type": "PersistentVolumeClaim"} | limits,
            ]
        },
    }


def _quota(
    hard: dict[str, str], used: dict[str, str], name: str = "tenant", **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {"hard": hard} | spec,
        "status": {"hard": hard, "used": used},
    }


CLAIM_RULE = {
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "operations": ["CREATE", "UPDATE"],
    "resources": ["persistentvolumeclaims"],
}


def _policy(name: str = "no-claims", **match: Any) -> dict[str, Any]:
    return {
        "apiVersion": ADMISSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": [CLAIM_RULE]} | match},
    }


def _binding(name: str = "no-claims", *actions: str, **match: Any) -> dict[str, Any]:
    return {
        "apiVersion": ADMISSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": f"{name}-binding"},
        "spec": {
            "policyName": name,
            "validationActions": [*(actions or ("Deny",))],
            "matchResources": match,
        },
    }


def test_a_claim_asks_for_the_model_and_its_volume_has_the_groups_limit() -> None:
    answer = _sync(load(SHORT).request)
    assert _asked(answer) == "16Gi"
    capacities = [c["spec"].get("capacity") for c in answer["children"]]
    assert {"storage": "500Gi"} in capacities


@pytest.mark.parametrize(
    ("declared", "asked"),
    # A request that the API server accepts, and never more than the volume has.
    [("3Mi", "3Mi"), (3145728, "3145728"), ("2e3", "2e3"), ("600Gi", "500Gi")],
)
def test_any_form_of_a_size(declared: Any, asked: str) -> None:
    request = load(SHORT).request
    request["parent"]["spec"]["modelSize"] = declared
    assert _asked(_sync(request)) == asked


def test_no_claim_asks_for_less_than_its_namespace_takes() -> None:
    least = (_limit(min="20Gi", max="1Ti"), _limit("more", min="25Gi"), _limit("x", "team-b"))
    answer = _sync(_relate(load(SHORT).request, *least))
    assert _asked(answer) == "25Gi"
    assert _asked(answer, "team-b") == "16Gi"
    assert _bound(answer)["reason"] == "ClaimPending"


def test_a_template_counts_where_the_namespace_takes_it() -> None:
    loose = (
        _limit(max="500Gi"),
        _quota({"requests.storage": "1Ti"}, {"requests.storage": "500Gi"}),
    )
    answer = _sync(_relate(load(KSERVE).request, *loose))
    assert _asked(answer) == "500Gi"


@pytest.mark.parametrize(
    "tight",
    [
        _limit(max="499Gi"),
        _limit(max="16Gi"),
        _quota({"requests.storage": "400Gi"}, {}),
        _quota({"requests.storage": "500Gi"}, {"requests.storage": "3Mi"}),
        _quota(
            {"local-models.storageclass.storage.k8s.io/requests.storage": "16Gi"},
            {"local-models.storageclass.storage.k8s.io/requests.storage": "0"},
        ),
    ],
)
def test_where_the_namespace_refuses_a_template_the_model_counts(tight: dict[str, Any]) -> None:
    answer = _sync(_relate(load(KSERVE).request, tight))
    assert _asked(answer) == "16Gi"
    assert _bound(answer)["reason"] == "ClaimPending"


def test_a_template_that_asks_for_less_than_the_model_stays_so() -> None:
    request = load(KSERVE).request
    claim = request["related"][GROUP]["gpu"]["spec"]["persistentVolumeClaimSpec"]
    claim["resources"]["requests"]["storage"] = "1Gi"
    assert _asked(_sync(_relate(request, _limit(max="10Gi")))) == "1Gi"


@pytest.mark.parametrize("case", [SHORT, KSERVE])
@pytest.mark.parametrize(
    ("against", "words"),
    [
        (_limit(max="15Gi"), "LimitRange sizes takes at most 15Gi, and it asks for 16Gi"),
        (
            _quota({"requests.storage": "20Gi"}, {"requests.storage": "5Gi"}),
            "ResourceQuota tenant has no room: it asks for 16Gi requests.storage, and 5Gi of 20Gi",
        ),
        (
            _quota({"persistentvolumeclaims": "2"}, {"persistentvolumeclaims": "2"}),
            "it asks for 1 persistentvolumeclaims, and 2 of 2 are used",
        ),
        (
            _quota(
                {"count/persistentvolumeclaims": "0"},
                {"count/persistentvolumeclaims": "0"},
                "none-at-all",
            ),
            "ResourceQuota none-at-all has no room",
        ),
    ],
)
def test_a_claim_that_is_refused_names_what_refuses_it(
    case: str, against: dict[str, Any], words: str
) -> None:
    answer = _sync(_relate(load(case).request, against))
    condition = _bound(answer)
    assert condition["reason"] == "ClaimRefused"
    assert condition["status"] == "False"
    assert "team-a/llama-gpu (" in condition["message"]
    assert words in condition["message"]
    # The claim is still desired, so that raising the limit is enough.
    assert _asked(answer) == "16Gi"


def test_each_refused_claim_has_its_reason_and_the_others_theirs() -> None:
    request = _relate(load(SHORT).request, _limit(max="1Gi"), _policy(), _binding())
    message = _bound(_sync(request))["message"]
    assert "not made: team-a/llama-gpu (LimitRange sizes takes" in message
    assert "not made yet: team-b/llama-gpu;" in message
    assert "no-claims" in message


@pytest.mark.parametrize(
    "harmless",
    [
        _limit(namespace="team-c", max="1Gi"),
        _quota({"pods": "1"}, {"pods": "1"}),
        # The quota has no status yet: the API server does not enforce it.
        _quota({"requests.storage": "1"}, {}) | {"status": {}},
        _quota({"requests.storage": "1"}, {}, scopes=["BestEffort"]),
        _quota({"gold.storageclass.storage.k8s.io/requests.storage": "1"}, {}),
        _limit(max="one"),
    ],
)
def test_what_does_not_refuse_is_not_named(harmless: dict[str, Any]) -> None:
    condition = _bound(_sync(_relate(load(SHORT).request, harmless)))
    assert condition["reason"] == "ClaimPending"
    assert harmless["metadata"]["name"] not in condition["message"]


@pytest.mark.parametrize("controller", ["caches", "namespace-caches"])
def test_a_policy_that_looks_at_claims_is_named(controller: str) -> None:
    case = SHORT if controller == "caches" else "namespace-caches/sync/downloaded"
    condition = _bound(_sync(_relate(load(case).request, _policy(), _binding()), controller))
    assert condition["reason"] == "ClaimPending"
    assert "ValidatingAdmissionPolicy (these look at new claims: no-claims)" in condition["message"]
    assert "kubectl describe local" in condition["message"]


def _selector(**labels: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": labels}}


NAME = "kubernetes.io/metadata.name"


@pytest.mark.parametrize(
    ("policy", "binding", "named"),
    [
        (_policy(**_selector(models="yes")), _binding(), True),
        (_policy(**_selector(models="no")), _binding(), False),
        (_policy(), _binding("no-claims", "Deny", **_selector(models="no")), False),
        (_policy(**_selector(**{NAME: "team-b"})), _binding(), True),
        (_policy(**_selector(**{NAME: "team-c"})), _binding(), False),
        (_policy(), _binding("no-claims", "Warn", "Audit"), False),
        (_policy(), _binding("another"), False),
        (_policy(resourceRules=[CLAIM_RULE | {"operations": ["DELETE"]}]), _binding(), False),
        (_policy(resourceRules=[CLAIM_RULE | {"resources": ["pods"]}]), _binding(), False),
        (
            _policy(resourceRules=[CLAIM_RULE | {"apiGroups": ["*"], "resources": ["*"]}]),
            _binding(),
            True,
        ),
        (_policy(excludeResourceRules=[CLAIM_RULE]), _binding(), False),
        (
            _policy(
                namespaceSelector={
                    "matchExpressions": [
                        {"key": "models", "operator": "NotIn", "values": ["yes"]},
                    ]
                }
            ),
            _binding(),
            False,
        ),
    ],
)
def test_which_policies_look_at_a_claim(
    policy: dict[str, Any], binding: dict[str, Any], named: bool
) -> None:
    message = _bound(_sync(_relate(load(SHORT).request, policy, binding)))["message"]
    assert ("no-claims" in message) is named


def test_claims_that_are_there_stay_whatever_they_ask_for() -> None:
    request = load(BOUND).request
    for claim in request["children"]["PersistentVolumeClaim.v1"].values():
        claim["spec"]["resources"] = {"requests": {"storage": "500Gi"}}
    # A later limit or a larger real size does not change an existing claim.
    request["parent"]["spec"]["modelSize"] = "32Gi"
    answer = _sync(_relate(request, _limit(max="1Gi"), _quota({"requests.storage": "1"}, {})))
    assert _asked(answer) == "500Gi"
    assert _bound(answer)["reason"] == "AllBound"


def _rules(case: str, **settings: Any) -> dict[str, dict[str, Any]]:
    client = create_app(Settings(**settings), clock=lambda: NOW).test_client()
    answer = client.post(f"/{case.split('/', maxsplit=1)[0]}/customize", json=load(case).request)
    return {rule["resource"]: rule for rule in json.loads(answer.text)["relatedResources"]}


def test_only_what_concerns_a_cache_is_looked_at() -> None:
    selected = _rules("caches/customize/namespace-selector")
    asked = load("caches/customize/namespace-selector").request["parent"]["spec"][
        "namespaceSelector"
    ]
    assert selected["limitranges"]["namespaceSelector"] == asked
    assert selected["resourcequotas"]["namespaceSelector"] == asked
    own = _rules("namespace-caches/customize/short-form")
    assert own["limitranges"]["namespace"] == own["resourcequotas"]["namespace"] == "team-a"
    # The cache can have no claim.
    assert "limitranges" not in _rules("caches/customize/short-form")
    off = _rules("caches/customize/namespace-selector", namespace_limits=False)
    assert "resourcequotas" not in off
    assert "validatingadmissionpolicies" not in off


def test_the_setting() -> None:
    def read(text: str) -> bool:
        return Settings.from_environment({"LOCALMODEL_NAMESPACE_LIMITS": text}).namespace_limits

    assert read("")
    assert read("true")
    assert not read("false")
    with pytest.raises(ValueError, match="LOCALMODEL_NAMESPACE_LIMITS must be true or false"):
        read("no")
