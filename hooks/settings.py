"""Settings of the hooks, from environment variables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from crds.base import GROUP
from crds.naming import model_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HOST_PATH_VARIABLE = "LOCALMODEL_HOST_PATH"
VOLUMES_VARIABLE = "LOCALMODEL_VOLUMES"
SERVICE_KINDS_VARIABLE = "LOCALMODEL_SERVICE_KINDS"
WORKLOAD_KINDS_VARIABLE = "LOCALMODEL_WORKLOAD_KINDS"
KSERVE_CONFIG_VARIABLE = "LOCALMODEL_KSERVE_CONFIG"
NAMESPACE_LIMITS_VARIABLE = "LOCALMODEL_NAMESPACE_LIMITS"

GROUP_HOOK_TIMEOUT_VARIABLE = "LOCALMODEL_GROUP_HOOK_TIMEOUT"

# What each variable of the hooks means, for docs/flags.md.
VARIABLES = {
    HOST_PATH_VARIABLE: "the directory of each node that the agents fill and that volumes lead to "
    "(default: /var/lib/localmodel)",
    VOLUMES_VARIABLE: "what a new claim shows: model, its own model, or root, all models of the "
    "node; the agents need the same value (default: root; the base sets model)",
    WORKLOAD_KINDS_VARIABLE: "workloads whose namespace gets a claim by a label, as "
    "<kind>.<group>/<version> with commas between them; Metacontroller must be allowed to read "
    "each kind, the cluster must have it, and Metacontroller must be restarted after a change "
    "(default: none; the base sets five kinds)",
    SERVICE_KINDS_VARIABLE: "services of KServe that caches follow, in the same form (default: "
    "none; the kserve overlay sets two kinds)",
    KSERVE_CONFIG_VARIABLE: "KServe's ConfigMap as <namespace>/<name>, for disableVolumeManagement "
    "(default: none)",
    NAMESPACE_LIMITS_VARIABLE: "whether the hooks read LimitRanges, ResourceQuotas and admission "
    "policies, to say why a claim is refused (default: true)",
    GROUP_HOOK_TIMEOUT_VARIABLE: "seconds that Metacontroller gives a group's hook, as in "
    "metacontroller/nodegroups.yaml (default: 30)",
}

# Timeouts in seconds, as in metacontroller/: the default of a hook, and that of a group's hook.
HOOK_TIMEOUT = 10.0
DEFAULT_GROUP_HOOK_TIMEOUT = 30.0
DEFAULT_HOST_PATH = "/var/lib/localmodel"

# Kinds with pod templates where hooks.workloads looks for them.
WORKLOAD_KINDS = {
    "Deployment": "apps",
    "StatefulSet": "apps",
    "DaemonSet": "apps",
    "ReplicaSet": "apps",
    "Job": "batch",
    "CronJob": "batch",
    "LeaderWorkerSet": "leaderworkerset.x-k8s.io",
}
INFERENCE_SERVICE = "InferenceService"
LLM_INFERENCE_SERVICE = "LLMInferenceService"


class VolumeScope(StrEnum):
    """What a new volume of a group in the short form shows."""

    MODEL = "model"
    ROOT = "root"


@dataclass(frozen=True)
class WatchedKind:
    """A kind of services or workloads that may use caches, with its API version."""

    kind: str
    api_version: str

    @property
    def resource(self) -> str:
        """Plural name of the kind."""
        return f"{self.kind.lower()}s"


@dataclass(frozen=True)
class ConfigMapName:
    """Namespace and name of a ConfigMap."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Settings:
    """Settings shared by all hooks.

    host_path: absolute path of the agents' root directory on nodes, for volumes.
    volumes: what new volumes show: one model, or all models of the node.
    service_kinds: kinds of services that caches watch. With a kind that the API server does not
    serve, every sync of a cache fails, so only the overlay for KServe names any.
    workload_kinds: kinds of workloads that caches watch; the same holds for a missing kind.
    kserve_config: KServe's ConfigMap, if hooks use it.
    namespace_limits: whether caches watch what may refuse their claims: LimitRanges,
    ResourceQuotas and ValidatingAdmissionPolicies.
    group_hook_timeout: Metacontroller's timeout of a group's hook, in seconds.
    """

    host_path: str = DEFAULT_HOST_PATH
    volumes: VolumeScope = VolumeScope.ROOT
    service_kinds: tuple[WatchedKind, ...] = ()
    workload_kinds: tuple[WatchedKind, ...] = ()
    kserve_config: ConfigMapName | None = None
    namespace_limits: bool = True
    group_hook_timeout: float = DEFAULT_GROUP_HOOK_TIMEOUT

    def timeout(self, path: str) -> float:
        """Metacontroller's timeout of a hook, in seconds. path: that of the hook's URL."""
        return self.group_hook_timeout if path.startswith("/nodegroups/") else HOOK_TIMEOUT

    @property
    def claims_follow_users(self) -> bool:
        """Whether any namespace may get a claim, because of a service or a workload there."""
        return bool(self.service_kinds or self.workload_kinds)

    def volume_path(self, key: str) -> str:
        """Directory of the nodes that a new volume for a model shows. key: that of the model."""
        if self.volumes is VolumeScope.ROOT:
            return self.host_path
        return model_directory(self.host_path, key)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings. Raises ValueError for an invalid value."""
        host_path = environment.get(HOST_PATH_VARIABLE) or DEFAULT_HOST_PATH
        if not host_path.startswith("/"):
            raise ValueError(f"{HOST_PATH_VARIABLE} must be an absolute path, not {host_path!r}")
        return cls(
            host_path=host_path.rstrip("/") or "/",
            volumes=_volumes(environment.get(VOLUMES_VARIABLE, "")),
            service_kinds=_kinds(environment, SERVICE_KINDS_VARIABLE, _service_kind),
            workload_kinds=_kinds(environment, WORKLOAD_KINDS_VARIABLE, _workload_kind),
            kserve_config=_config_map(environment.get(KSERVE_CONFIG_VARIABLE, "")),
            namespace_limits=_truth(environment.get(NAMESPACE_LIMITS_VARIABLE, "")),
            group_hook_timeout=_seconds(environment.get(GROUP_HOOK_TIMEOUT_VARIABLE, "")),
        )


def _volumes(text: str) -> VolumeScope:
    try:
        return VolumeScope(text or VolumeScope.ROOT)
    except ValueError:
        raise ValueError(
            f"{VOLUMES_VARIABLE} must be {VolumeScope.MODEL} or {VolumeScope.ROOT}, not {text!r}"
        ) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text) if text else DEFAULT_GROUP_HOOK_TIMEOUT
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(
            f"{GROUP_HOOK_TIMEOUT_VARIABLE} must be seconds, more than 0, not {text!r}"
        )
    return seconds


def _truth(text: str) -> bool:
    if text not in {"", "true", "false"}:
        raise ValueError(f"{NAMESPACE_LIMITS_VARIABLE} must be true or false, not {text!r}")
    return text != "false"


def _kinds(
    environment: Mapping[str, str], variable: str, parse: Callable[[str], WatchedKind]
) -> tuple[WatchedKind, ...]:
    text = environment.get(variable, "")
    kinds = tuple(parse(word.strip()) for word in text.split(",") if word.strip())
    if len({kind.kind for kind in kinds}) < len(kinds):
        raise ValueError(f"{variable} names a kind twice: {text!r}")
    return kinds


def _service_kind(word: str) -> WatchedKind:
    kind, _, api_version = word.partition(".")
    known = kind in {INFERENCE_SERVICE, LLM_INFERENCE_SERVICE}
    if not known or not api_version.startswith(f"{GROUP}/"):
        raise ValueError(
            f"{SERVICE_KINDS_VARIABLE} takes {INFERENCE_SERVICE}.{GROUP}/v1beta1 and "
            f"{LLM_INFERENCE_SERVICE}.{GROUP}/v1alpha2, with commas between them, not {word!r}"
        )
    return WatchedKind(kind, api_version)


def _workload_kind(word: str) -> WatchedKind:
    kind, _, api_version = word.partition(".")
    group, _, version = api_version.partition("/")
    if not version or WORKLOAD_KINDS.get(kind) != group:
        known = ", ".join(f"{kind}.{group}/<version>" for kind, group in WORKLOAD_KINDS.items())
        raise ValueError(
            f"{WORKLOAD_KINDS_VARIABLE} takes {known}, with commas between them, not {word!r}"
        )
    return WatchedKind(kind, api_version)


def _config_map(text: str) -> ConfigMapName | None:
    if not text:
        return None
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        raise ValueError(f"{KSERVE_CONFIG_VARIABLE} must be namespace/name, not {text!r}")
    return ConfigMapName(namespace, name)
