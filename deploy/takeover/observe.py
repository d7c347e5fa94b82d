"""Reads from the API server the objects that decide the steps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    COMPOSITES,
    CONFIG_MAPS,
    CRDS,
    DAEMON_SETS,
    DECORATORS,
    DEPLOYMENTS,
    GROUPS,
    JOBS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    NODES,
    PLACEMENTS,
    PODS,
    POLICIES,
    POLICY_BINDINGS,
    VOLUMES,
    WEBHOOKS,
    Ref,
    ref_to,
)
from deploy.takeover import names, to_kserve, to_localmodel

if TYPE_CHECKING:
    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import Kind, KubeObject


class ConfigUnreadableError(Exception):
    """KServe's ConfigMap, which names the namespace of the download Jobs, cannot be read."""


def observe_kserve(
    api: KubeClient, kserve_namespace: str, job_namespace: str | None
) -> to_localmodel.KServeObjects:
    """The objects that decide a takeover. Raises ApiError, ConfigUnreadableError.

    job_namespace: None means the namespace that KServe's ConfigMap names.
    """
    jobs_in = job_namespace or _configured_namespace(api, kserve_namespace)
    programs = f"{names.KSERVE_POD_LABEL} in ({names.KSERVE_CONTROLLER},{names.KSERVE_AGENT})"
    crds = (api.find(CRDS, kind.crd) for kind in names.SHARED)
    return to_localmodel.KServeObjects(
        kserve_namespace=kserve_namespace,
        job_namespace=jobs_in,
        controller=api.find(DEPLOYMENTS, names.KSERVE_CONTROLLER, kserve_namespace),
        agent=api.find(DAEMON_SETS, names.KSERVE_AGENT, kserve_namespace),
        pods=api.find_all(PODS, kserve_namespace, labels=programs),
        crds=tuple(crd for crd in crds if crd is not None),
        webhook=api.find(WEBHOOKS, names.KSERVE_WEBHOOK),
        guarded=_guarded(api),
        beside=_may_go_on(api, kserve_namespace),
        kernel_caches=tuple(
            ref_to(kind, obj) for kind in names.KERNEL_KINDS for obj in api.find_all(kind)
        ),
        caches=_caches(api),
        groups=api.find_all(GROUPS),
        jobs=api.find_all(JOBS, jobs_in),
        job_pods=api.find_all(PODS, jobs_in),
        claims=api.find_all(CLAIMS, jobs_in),
        volumes={volume["metadata"]["name"]: volume for volume in api.find_all(VOLUMES)},
    )


def _may_go_on(api: KubeClient, kserve_namespace: str) -> bool:
    """Whether the policy for a controller beside localmodel is bound, and names this controller."""
    policy = api.find(POLICIES, names.BESIDE)
    if policy is None or api.find(POLICY_BINDINGS, names.BESIDE) is None:
        return False
    account = f"'system:serviceaccount:{kserve_namespace}:{names.KSERVE_CONTROLLER}'"
    conditions = policy["spec"].get("matchConditions") or ()
    return any(account in condition["expression"] for condition in conditions)


def observe_localmodel(api: KubeClient, namespace: str = "") -> to_kserve.LocalmodelObjects:
    """The objects that decide the way back, and an uninstall. Raises ApiError.

    namespace: of localmodel's programs; empty means all namespaces.
    """
    agents = f"{names.AGENT_POD_LABEL}={names.AGENT}"
    refs = [Ref(COMPOSITES, name) for name in names.COMPOSITES]
    refs += [Ref(DECORATORS, name) for name in names.DECORATORS]
    return to_kserve.LocalmodelObjects(
        controllers=tuple(ref for ref in refs if api.find(*ref) is not None),
        agent=next(iter(api.find_all(DAEMON_SETS, namespace, labels=agents)), None),
        pods=api.find_all(PODS, namespace, labels=agents),
        caches=_caches(api),
        groups=api.find_all(GROUPS),
        placements=api.find_all(PLACEMENTS),
        nodes=api.find_all(NODES),
        volumes=api.find_all(VOLUMES),
        model_nodes=api.find_all(LOCAL_MODEL_NODES),
    )


def _caches(api: KubeClient) -> tuple[KubeObject, ...]:
    kinds: tuple[Kind, ...] = (CACHES, NAMESPACE_CACHES)
    return tuple(cache for kind in kinds for cache in api.find_all(kind))


def _guarded(api: KubeClient) -> bool | None:
    """See KServeObjects.guarded."""
    if not api.serves(POLICY_BINDINGS):
        return None
    return api.find(POLICY_BINDINGS, names.POLICY) is not None


def _configured_namespace(api: KubeClient, kserve_namespace: str) -> str:
    """The job namespace that KServe's ConfigMap names; KServe's default if it names none."""
    ref = Ref(CONFIG_MAPS, names.KSERVE_CONFIG, kserve_namespace)
    text = ((api.find(*ref) or {}).get("data") or {}).get(names.KSERVE_CONFIG_KEY)
    if text is None:
        return names.JOB_NAMESPACE
    try:
        found = json.loads(text)
        return str(found.get("jobNamespace") or names.JOB_NAMESPACE)
    except (ValueError, AttributeError):
        raise ConfigUnreadableError(
            f"the key {names.KSERVE_CONFIG_KEY} of {ref} is not a JSON object: correct it, or set "
            "the namespace of KServe's download Jobs with --job-namespace"
        ) from None
