"""What is there, read from the API server for the plans."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from localmodel.takeover import back, names, there
from localmodel.takeover.kinds import (
    CACHE,
    CLAIM,
    COMPOSITE,
    CONFIG_MAP,
    CRD,
    DAEMON_SET,
    DECORATOR,
    DEPLOYMENT,
    JOB,
    KERNEL_KINDS,
    MODEL_NODE,
    NAMESPACE_CACHE,
    NODE,
    NODE_GROUP,
    PLACEMENT,
    POD,
    POLICY,
    POLICY_BINDING,
    SHARED,
    VOLUME,
    WEBHOOK,
    Ref,
    ref_to,
)

if TYPE_CHECKING:
    from localmodel.takeover.api import Api
    from localmodel.takeover.kinds import Kind, KubeObject


class ConfigUnreadableError(Exception):
    """KServe's ConfigMap does not say which namespace its Jobs run in."""


def see_kserve(api: Api, kserve_namespace: str, job_namespace: str | None) -> there.Seen:
    """What there is of KServe. job_namespace: None for the one that KServe's ConfigMap names.

    Raises ApiError, ConfigUnreadableError.
    """
    jobs_in = job_namespace or _configured_namespace(api, kserve_namespace)
    programs = f"{names.KSERVE_POD_LABEL} in ({names.KSERVE_CONTROLLER},{names.KSERVE_AGENT})"
    crds = (api.find(Ref(CRD, kind.crd)) for kind in SHARED)
    return there.Seen(
        kserve_namespace=kserve_namespace,
        job_namespace=jobs_in,
        controller=api.find(Ref(DEPLOYMENT, names.KSERVE_CONTROLLER, kserve_namespace)),
        agent=api.find(Ref(DAEMON_SET, names.KSERVE_AGENT, kserve_namespace)),
        pods=api.list(POD, kserve_namespace, programs),
        crds=tuple(crd for crd in crds if crd is not None),
        webhook=api.find(Ref(WEBHOOK, names.KSERVE_WEBHOOK)),
        guarded=_guarded(api),
        beside=_may_go_on(api, kserve_namespace),
        kernel_caches=tuple(ref_to(kind, obj) for kind in KERNEL_KINDS for obj in api.list(kind)),
        caches=_caches(api),
        groups=api.list(NODE_GROUP),
        jobs=api.list(JOB, jobs_in),
        job_pods=api.list(POD, jobs_in),
        claims=api.list(CLAIM, jobs_in),
        volumes={volume["metadata"]["name"]: volume for volume in api.list(VOLUME)},
    )


def _may_go_on(api: Api, kserve_namespace: str) -> bool:
    """Whether the policy is there, and restrains who runs in this namespace."""
    policy = api.find(Ref(POLICY, names.BESIDE))
    if policy is None or api.find(Ref(POLICY_BINDING, names.BESIDE)) is None:
        return False
    account = f"'system:serviceaccount:{kserve_namespace}:{names.KSERVE_CONTROLLER}'"
    conditions = policy["spec"].get("matchConditions") or ()
    return any(account in condition["expression"] for condition in conditions)


def see_localmodel(api: Api) -> back.Seen:
    """What there is of localmodel. Raises ApiError."""
    refs = [Ref(COMPOSITE, name) for name in names.COMPOSITES]
    refs += [Ref(DECORATOR, name) for name in names.DECORATORS]
    return back.Seen(
        controllers=tuple(ref for ref in refs if api.find(ref) is not None),
        agent=api.find(Ref(DAEMON_SET, names.AGENT, names.NAMESPACE)),
        pods=api.list(POD, names.NAMESPACE, f"{names.AGENT_POD_LABEL}={names.AGENT}"),
        caches=_caches(api),
        groups=api.list(NODE_GROUP),
        placements=api.list(PLACEMENT),
        nodes=api.list(NODE),
        volumes=api.list(VOLUME),
        model_nodes=api.list(MODEL_NODE),
    )


def _caches(api: Api) -> tuple[KubeObject, ...]:
    kinds: tuple[Kind, ...] = (CACHE, NAMESPACE_CACHE)
    return tuple(cache for kind in kinds for cache in api.list(kind))


def _guarded(api: Api) -> bool | None:
    if not api.serves(POLICY_BINDING):
        return None
    return api.find(Ref(POLICY_BINDING, names.POLICY)) is not None


def _configured_namespace(api: Api, kserve_namespace: str) -> str:
    """The namespace that KServe's ConfigMap names; KServe's default where it names none."""
    ref = Ref(CONFIG_MAP, names.KSERVE_CONFIG, kserve_namespace)
    text = ((api.find(ref) or {}).get("data") or {}).get(names.KSERVE_CONFIG_KEY)
    if text is None:
        return names.JOB_NAMESPACE
    try:
        found = json.loads(text)
        return str(found.get("jobNamespace") or names.JOB_NAMESPACE)
    except (ValueError, AttributeError):
        raise ConfigUnreadableError(
            f"the key {names.KSERVE_CONFIG_KEY} of {ref} is not a JSON object: mend it, or name "
            "the namespace of KServe's download Jobs with --job-namespace"
        ) from None
