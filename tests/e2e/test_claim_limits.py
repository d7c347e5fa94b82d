"""What claims ask for, and what is told where their namespaces or a policy refuse them."""

from __future__ import annotations

from deploy.kube.errors import ApiError
from deploy.kube.kinds import CACHES, CLAIMS, GROUPS, POLICIES, POLICY_BINDINGS, Kind
from tests.e2e.world import World, an_object

LIMIT_RANGES = Kind("v1", "limitranges", "LimitRange", namespaced=True)
QUOTAS = Kind("v1", "resourcequotas", "ResourceQuota", namespaced=True)
_ADMISSION = "admissionregistration.k8s.io/v1"


def _limit(world: World, namespace: str, name: str, **bounds: str) -> None:
    """Have a LimitRange for claims."""
    limit = {which: {"storage": bound} for which, bound in bounds.items()}
    spec = {"limits": [{"type": "PersistentVolumeClaim"} | limit]}
    world.make(an_object(LIMIT_RANGES, name, namespace, spec=spec))


def _quota(world: World, namespace: str, name: str, **hard: str) -> None:
    """Have a ResourceQuota that is in force."""
    limits = {key.replace("_", "."): value for key, value in hard.items()}
    world.make(an_object(QUOTAS, name, namespace, spec={"hard": limits}))

    def in_force() -> bool:
        return bool(world.api.get(QUOTAS, name, namespace)["status"].get("hard") == limits)

    world.until(in_force, f"ResourceQuota {namespace}/{name} to be in force")


def _request(world: World, namespace: str, claim: str) -> str:
    found = world.api.get(CLAIMS, claim, namespace)
    return str(found["spec"]["resources"]["requests"]["storage"])


def _until_told(world: World, cache: str, reason: str, *words: str) -> str:
    """Wait until ClaimsBound has a reason and says all these words. Returns its message."""

    def told() -> str:
        condition = world.condition(CACHES, cache, "ClaimsBound")
        message = str(condition.get("message"))
        right = condition.get("reason") == reason and all(word in message for word in words)
        return message if right else ""

    return world.until(told, f"ClaimsBound of {cache} to say {words} because of {reason}")


def test_a_small_model_is_mounted_where_the_groups_limit_would_not_fit(world: World) -> None:
    world.node("node-1", "fits")
    world.group("fits", storageLimit="10Gi")
    selector = {"matchLabels": {"fits": "yes"}}
    for namespace in ("fits-limit", "fits-least", "fits-quota"):
        world.namespace(namespace, fits="yes")
    _limit(world, "fits-limit", "most", max="1Gi")
    # More than the whole volume has.
    _limit(world, "fits-least", "least", min="20Gi")
    _quota(world, "fits-quota", "tenant", requests_storage="15Gi")
    for cache in ("fits-a", "fits-b"):
        uri = world.http.put(f"{cache}.bin", cache.encode())
        world.cache(cache, uri, "fits", modelSize="3Mi", namespaceSelector=selector)
    for cache in ("fits-a", "fits-b"):
        for namespace in ("fits-limit", "fits-least", "fits-quota"):
            world.wait_bound(namespace, f"{cache}-fits")
        assert _request(world, "fits-limit", f"{cache}-fits") == "3Mi"
        assert _request(world, "fits-least", f"{cache}-fits") == "20Gi"
        assert _request(world, "fits-quota", f"{cache}-fits") == "3Mi"
        world.wait_condition(cache, "AllBound", kind="ClaimsBound")
    # A pod gets the whole of its volume.
    claim = world.api.get(CLAIMS, "fits-a-fits", "fits-limit")
    assert claim["status"]["capacity"]["storage"] == "10Gi"

    # What is there stays, whatever a new one would ask for.
    world.patch(CACHES, "fits-a", {"spec": {"modelSize": "2Gi"}})
    world.patch(GROUPS, "fits", {"spec": {"storageLimit": "12Gi"}})

    def seen() -> bool:
        cache = world.api.get(CACHES, "fits-a")
        condition = world.condition(CACHES, "fits-a", "ClaimsBound")
        return bool(condition.get("observedGeneration") == cache["metadata"]["generation"])

    world.until(seen, "the new size to be seen")
    world.wait_condition("fits-a", "AllBound", kind="ClaimsBound")
    now = world.api.get(CLAIMS, "fits-a-fits", "fits-limit")
    assert (now["metadata"]["uid"], now["spec"]) == (claim["metadata"]["uid"], claim["spec"])
    world.remove_caches("fits-a", "fits-b")


def test_a_claim_that_is_refused_is_told_with_the_limit_and_comes_when_it_is_raised(
    world: World,
) -> None:
    uri = world.http.put("refused.bin", b"refused")
    for namespace in ("refused-limit", "refused-quota", "refused-count"):
        world.namespace(namespace, refused="yes")
    _limit(world, "refused-limit", "no-large-claims", max="1Gi")
    _quota(world, "refused-quota", "tenant-of-1gi", requests_storage="1Gi")
    _quota(world, "refused-count", "no-claims-at-all", persistentvolumeclaims="0")
    selector = {"matchLabels": {"refused": "yes"}}
    world.node("node-1", "refused")
    world.group("refused", storageLimit="10Gi")
    world.cache("refused", uri, "refused", modelSize="2Gi", namespaceSelector=selector)
    _until_told(
        world,
        "refused",
        "ClaimRefused",
        "refused-limit/refused-refused (LimitRange no-large-claims takes at most 1Gi",
        "refused-quota/refused-refused (ResourceQuota tenant-of-1gi has no room",
        "refused-count/refused-refused (ResourceQuota no-claims-at-all has no room",
    )
    _limit(world, "refused-limit", "no-large-claims", max="2Gi")
    world.wait_bound("refused-limit", "refused-refused")
    _quota(world, "refused-quota", "tenant-of-1gi", requests_storage="2Gi")
    world.wait_bound("refused-quota", "refused-refused")
    world.delete(QUOTAS, "no-claims-at-all", "refused-count")
    world.wait_bound("refused-count", "refused-refused")
    world.wait_condition("refused", "AllBound", kind="ClaimsBound")
    # Where its own claim takes the whole quota.
    quota = world.api.get(QUOTAS, "tenant-of-1gi", "refused-quota")
    assert quota["status"]["used"]["requests.storage"] == "2Gi"
    world.remove_caches("refused")


def test_a_claim_that_a_policy_refuses_is_told_with_the_policy(world: World) -> None:
    uri = world.http.put("policed.bin", b"policed")
    world.node("node-1", "policed")
    world.group("policed")
    world.namespace("policed", policed="yes")
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["persistentvolumeclaims"],
    }
    here = {"namespaceSelector": {"matchLabels": {"policed": "yes"}}}
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "no claims here"}],
    }
    binding = {"policyName": "no-claims", "validationActions": ["Deny"], "matchResources": here}
    world.make(an_object(POLICIES, "no-claims", spec=policy))
    world.make(an_object(POLICY_BINDINGS, "no-claims", spec=binding))
    probe = an_object(
        CLAIMS,
        "probe",
        "policed",
        spec={
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "1"}},
        },
    )

    def in_force() -> bool:
        try:
            world.api.create(probe, dry_run=True)
        except ApiError as error:
            return "no claims here" in str(error)
        return False

    world.until(in_force, "the policy to be in force")
    try:
        world.cache("policed", uri, "policed", namespaceSelector=here["namespaceSelector"])
        _until_told(
            world,
            "policed",
            "ClaimPending",
            "policed/policed-policed",
            "ValidatingAdmissionPolicy (these look at new claims: no-claims)",
        )
    finally:
        world.delete(POLICY_BINDINGS, "no-claims")
        world.delete(POLICIES, "no-claims")
    world.wait_bound("policed", "policed-policed")
    world.remove_caches("policed")
