"""Names in the cluster: KServe's, from its charts and pkg/controller, and localmodel's."""

from __future__ import annotations

from crds.base import API_VERSION
from deploy.kube.kinds import CACHES, GROUPS, LOCAL_MODEL_NODES, NAMESPACE_CACHES, Kind

# The kinds that KServe has too.
SHARED = (CACHES, NAMESPACE_CACHES, GROUPS, LOCAL_MODEL_NODES)
# The kinds of KServe's kernel caches that users create. The process of KServe's local model cache
# reconciles them.
KERNEL_KINDS = (
    Kind(API_VERSION, "kernelcaches", "KernelCache", namespaced=True),
    Kind(API_VERSION, "kernelcachecaptures", "KernelCacheCapture", namespaced=True),
    Kind(API_VERSION, "kernelcachenodegroups", "KernelCacheNodeGroup"),
)

KSERVE_NAMESPACE = "kserve"
KSERVE_CONTROLLER = "kserve-localmodel-controller-manager"
KSERVE_AGENT = "kserve-localmodelnode-agent"
# Label of the pods of KServe's controller and agent: the name of their Deployment or DaemonSet.
KSERVE_POD_LABEL = "control-plane"
KSERVE_WEBHOOK = "localmodelcache.serving.kserve.io"
KSERVE_FINALIZERS = (
    "localmodel.kserve.io/finalizer",
    "localmodelnamespacecache.kserve.io/finalizer",
)
KSERVE_CONFIG = "inferenceservice-config"
KSERVE_CONFIG_KEY = "localModel"
JOB_NAMESPACE = "kserve-localmodel-jobs"
# Labels of a download Job, and the volume to which the Job writes a model.
JOB_MODEL_LABEL = "model"
JOB_NODE_LABEL = "node"
JOB_VOLUME = "kserve-pvc-source"

KEEP_ANNOTATION = "helm.sh/resource-policy"
KEEP = "keep"
HELM_RELEASE = "meta.helm.sh/release-name"
HELM_NAMESPACE = "meta.helm.sh/release-namespace"

# The policy of deploy/overlays/kserve that protects a cache in use, as KServe's webhook did.
POLICY = "localmodel-cache-in-use"
# The policy of deploy/overlays/kserve/beside, with which KServe's controller may keep running.
BESIDE = "localmodel-beside-kserve"
COMPOSITES = ("localmodel-caches", "localmodel-namespace-caches", "localmodel-nodegroups")
DECORATORS = ("localmodel-nodes",)
# Metacontroller adds these to the parents of a controller with a finalize hook.
FINALIZERS = tuple(f"metacontroller.io/compositecontroller-{name}" for name in COMPOSITES)
NAMESPACE = "localmodel"
AGENT = "localmodel-agent"
AGENT_POD_LABEL = "app.kubernetes.io/name"
