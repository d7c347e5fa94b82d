"""The kinds that the command looks at, and where the API server has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from localmodel.crds.base import API_VERSION

# An object as JSON.
KubeObject = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind, in one version."""

    api_version: str
    plural: str
    name: str
    namespaced: bool = False

    @property
    def root(self) -> str:
        """URL path of its group and version."""
        return f"/{'apis' if '/' in self.api_version else 'api'}/{self.api_version}"

    @property
    def crd(self) -> str:
        """Name of the CRD that makes it, where one does."""
        return f"{self.plural}.{self.api_version.partition('/')[0]}"

    def path(self, name: str = "", namespace: str = "") -> str:
        """URL path of an object, or, without a name, of a collection."""
        scope = ("namespaces", namespace) if namespace else ()
        return "/".join((self.root, *scope, self.plural, *((name,) if name else ())))


CACHE = Kind(API_VERSION, "localmodelcaches", "LocalModelCache")
NAMESPACE_CACHE = Kind(
    API_VERSION, "localmodelnamespacecaches", "LocalModelNamespaceCache", namespaced=True
)
NODE_GROUP = Kind(API_VERSION, "localmodelnodegroups", "LocalModelNodeGroup")
MODEL_NODE = Kind(API_VERSION, "localmodelnodes", "LocalModelNode")
PLACEMENT = Kind(API_VERSION, "localmodelplacements", "LocalModelPlacement")
# KServe's kernel caches, as far as users make them: the process of its local model cache runs them.
KERNEL_KINDS = (
    Kind(API_VERSION, "kernelcaches", "KernelCache", namespaced=True),
    Kind(API_VERSION, "kernelcachecaptures", "KernelCacheCapture", namespaced=True),
    Kind(API_VERSION, "kernelcachenodegroups", "KernelCacheNodeGroup"),
)
# Those that KServe has too.
SHARED = (CACHE, NAMESPACE_CACHE, NODE_GROUP, MODEL_NODE)

CRD = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition")
WEBHOOK = Kind(
    "admissionregistration.k8s.io/v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
)
POLICY = Kind(
    "admissionregistration.k8s.io/v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
)
POLICY_BINDING = Kind(
    "admissionregistration.k8s.io/v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
)
DEPLOYMENT = Kind("apps/v1", "deployments", "Deployment", namespaced=True)
DAEMON_SET = Kind("apps/v1", "daemonsets", "DaemonSet", namespaced=True)
JOB = Kind("batch/v1", "jobs", "Job", namespaced=True)
POD = Kind("v1", "pods", "Pod", namespaced=True)
CLAIM = Kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim", namespaced=True)
VOLUME = Kind("v1", "persistentvolumes", "PersistentVolume")
NODE = Kind("v1", "nodes", "Node")
CONFIG_MAP = Kind("v1", "configmaps", "ConfigMap", namespaced=True)
COMPOSITE = Kind("metacontroller.k8s.io/v1alpha1", "compositecontrollers", "CompositeController")
DECORATOR = Kind("metacontroller.k8s.io/v1alpha1", "decoratorcontrollers", "DecoratorController")


@dataclass(frozen=True)
class Ref:
    """One object."""

    kind: Kind
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind.name} {'/'.join(filter(None, (self.namespace, self.name)))}"


def ref_to(kind: Kind, obj: KubeObject) -> Ref:
    """The reference to an object that was read."""
    return Ref(kind, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
