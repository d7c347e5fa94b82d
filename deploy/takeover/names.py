"""Names in the cluster: KServe's (its charts and pkg/controller), and some of ours."""

from __future__ import annotations

from crds.base import API_VERSION
from deploy.kube.kinds import CACHES, GROUPS, LOCAL_MODEL_NODES, NAMESPACE_CACHES, Kind

# The kinds that KServe has too.
SHARED = (CACHES, NAMESPACE_CACHES, GROUPS, LOCAL_MODEL_NODES)
# KServe's kernel caches, as far as users make them: the process of its local model cache runs them.
KERNEL_KINDS = (
    Kind(API_VERSION, "kernelcaches", "KernelCache", namespaced=True),
    Kind(API_VERSION, "kernelcachecaptures", "KernelCacheCapture", namespaced=True),
    Kind(API_VERSION, "kernelcachenodegroups", "KernelCacheNodeGroup"),
)

KSERVE_NAMESPACE = "kserve"
KSERVE_CONTROLLER = "kserve-localmodel-controller-manager"
KSERVE_AGENT = "kserve-localmodelnode-agent"
# On the pods of both, with their name.
KSERVE_POD_LABEL = "control-plane"
KSERVE_WEBHOOK = "localmodelcache.serving.kserve.io"
KSERVE_FINALIZERS = (
    "localmodel.kserve.io/finalizer",
    "localmodelnamespacecache.kserve.io/finalizer",
)
KSERVE_CONFIG = "inferenceservice-config"
KSERVE_CONFIG_KEY = "localModel"
JOB_NAMESPACE = "kserve-localmodel-jobs"
# Of a download Job: its labels, and the volume in which it puts a model.
JOB_MODEL_LABEL = "model"
JOB_NODE_LABEL = "node"
JOB_VOLUME = "kserve-pvc-source"

KEEP_ANNOTATION = "helm.sh/resource-policy"
KEEP = "keep"
HELM_RELEASE = "meta.helm.sh/release-name"
HELM_NAMESPACE = "meta.helm.sh/release-namespace"

# The policy of deploy/overlays/kserve that does what KServe's webhook did for a cache in use.
POLICY = "localmodel-cache-in-use"
# That of deploy/overlays/kserve/beside, with which KServe's controller may go on.
BESIDE = "localmodel-beside-kserve"
COMPOSITES = ("localmodel-caches", "localmodel-namespace-caches", "localmodel-nodegroups")
DECORATORS = ("localmodel-nodes",)
# What Metacontroller puts on the parents of a controller with a finalize hook.
FINALIZERS = tuple(f"metacontroller.io/compositecontroller-{name}" for name in COMPOSITES)
NAMESPACE = "localmodel"
AGENT = "localmodel-agent"
AGENT_POD_LABEL = "app.kubernetes.io/name"
