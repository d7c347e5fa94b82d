"""Kinds of objects, and their URL paths. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from crds.base import API_VERSION

# An object as JSON.
KubeObject = dict[str, Any]
# A list of operations (RFC 6902).
JsonPatch = list[dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A kind of objects in one version.

    api_version: as in objects, such as v1 or apps/v1. plural: the name in URLs and in kubectl get.
    name: the `kind` of its objects. has_status: whether the kind has the subresource status; set
    only by `KubeClient.kinds`.
    """

    api_version: str
    plural: str
    name: str
    namespaced: bool = False
    has_status: bool = field(default=False, compare=False)

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def crd(self) -> str:
        """The name of the CRD of a custom kind."""
        return f"{self.plural}.{self.group}"

    def path(self, name: str = "", namespace: str = "", subresource: str = "") -> str:
        """URL path of an object or a subresource; without a name, of all objects of the kind."""
        scope = ("namespaces", namespace) if self.namespaced and namespace else ()
        parts = (root(self.api_version), *scope, self.plural, name, subresource)
        return "/".join(part for part in parts if part)


class Ref(NamedTuple):
    """A reference to an object. Unpack it for methods of the client: `api.find(*ref)`."""

    kind: Kind
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind.name} {'/'.join(filter(None, (self.namespace, self.name)))}"


def root(api_version: str) -> str:
    """URL path of a group and version."""
    return f"/{'apis' if '/' in api_version else 'api'}/{api_version}"


def ref_to(kind: Kind, obj: KubeObject) -> Ref:
    """The reference to an object."""
    return Ref(kind, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))


CACHES = Kind(API_VERSION, "localmodelcaches", "LocalModelCache")
NAMESPACE_CACHES = Kind(
    API_VERSION, "localmodelnamespacecaches", "LocalModelNamespaceCache", namespaced=True
)
GROUPS = Kind(API_VERSION, "localmodelnodegroups", "LocalModelNodeGroup")
LOCAL_MODEL_NODES = Kind(API_VERSION, "localmodelnodes", "LocalModelNode")
PLACEMENTS = Kind(API_VERSION, "localmodelplacements", "LocalModelPlacement")

CLAIMS = Kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim", namespaced=True)
CONFIG_MAPS = Kind("v1", "configmaps", "ConfigMap", namespaced=True)
EVENTS = Kind("v1", "events", "Event", namespaced=True)
NAMESPACES = Kind("v1", "namespaces", "Namespace")
NODES = Kind("v1", "nodes", "Node")
PODS = Kind("v1", "pods", "Pod", namespaced=True)
SECRETS = Kind("v1", "secrets", "Secret", namespaced=True)
VOLUMES = Kind("v1", "persistentvolumes", "PersistentVolume")
DAEMON_SETS = Kind("apps/v1", "daemonsets", "DaemonSet", namespaced=True)
DEPLOYMENTS = Kind("apps/v1", "deployments", "Deployment", namespaced=True)
JOBS = Kind("batch/v1", "jobs", "Job", namespaced=True)

CRDS = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition")
_ADMISSION = "admissionregistration.k8s.io/v1"
WEBHOOKS = Kind(_ADMISSION, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
POLICIES = Kind(_ADMISSION, "validatingadmissionpolicies", "ValidatingAdmissionPolicy")
POLICY_BINDINGS = Kind(
    _ADMISSION, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"
)

_METACONTROLLER = "metacontroller.k8s.io/v1alpha1"
COMPOSITES = Kind(_METACONTROLLER, "compositecontrollers", "CompositeController")
DECORATORS = Kind(_METACONTROLLER, "decoratorcontrollers", "DecoratorController")
