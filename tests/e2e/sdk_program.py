"""A program of a user of KServe's Python SDK, run as `sdk_program.py KUBECONFIG JOB`.

JOB is JSON: the names of the objects, the model's URI, the nodes. Prints what it has found as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from kserve import KServeClient
from kserve.models.v1alpha1_local_model_cache import V1alpha1LocalModelCache
from kserve.models.v1alpha1_local_model_cache_spec import V1alpha1LocalModelCacheSpec
from kserve.models.v1alpha1_local_model_namespace_cache import V1alpha1LocalModelNamespaceCache
from kserve.models.v1alpha1_local_model_namespace_cache_spec import (
    V1alpha1LocalModelNamespaceCacheSpec,
)
from kserve.models.v1alpha1_local_model_node_group import V1alpha1LocalModelNodeGroup
from kserve.models.v1alpha1_local_model_node_group_spec import V1alpha1LocalModelNodeGroupSpec
from kubernetes import client as kubernetes

API_VERSION = "serving.kserve.io/v1alpha1"
# The SDK's own defaults are 600 and 10.
WAIT = {"timeout_seconds": 120, "polling_interval": 1}


def main(kubeconfig: str, job: dict[str, Any]) -> dict[str, Any]:
    """Make a group and two caches of it, wait for them, read them, and delete all."""
    client = KServeClient(config_file=kubeconfig)
    name, nodes, namespace = job["name"], job["nodes"], job["namespace"]
    client.create_local_model_node_group(_group(name, nodes))
    client.create_local_model_cache(_cache(name, job["uri"]))
    client.create_local_model_namespace_cache(_namespace_cache(name, namespace, job["uri"]))

    client.wait_local_model_cache_ready(name, nodes=nodes, **WAIT)
    client.wait_local_model_namespace_cache_ready(name, namespace, nodes=nodes, **WAIT)
    found = {
        "group": client.get_local_model_node_group(name),
        "cache": client.get_local_model_cache(name),
        "namespaceCache": client.get_local_model_namespace_cache(name, namespace),
        "elsewhere": client.is_local_model_cache_ready(name, nodes=["no-such-node"]),
    }
    client.delete_local_model_namespace_cache(name, namespace)
    client.delete_local_model_cache(name)
    client.delete_local_model_node_group(name)
    return found


def _group(name: str, nodes: list[str]) -> V1alpha1LocalModelNodeGroup:
    expression = kubernetes.V1NodeSelectorRequirement(
        key="kubernetes.io/hostname", operator="In", values=nodes
    )
    term = kubernetes.V1NodeSelectorTerm(match_expressions=[expression])
    affinity = kubernetes.V1VolumeNodeAffinity(
        required=kubernetes.V1NodeSelector(node_selector_terms=[term])
    )
    spec = V1alpha1LocalModelNodeGroupSpec(
        storage_limit="1Gi",
        persistent_volume_claim_spec=kubernetes.V1PersistentVolumeClaimSpec(
            access_modes=["ReadWriteOnce"],
            resources=kubernetes.V1VolumeResourceRequirements(requests={"storage": "1Gi"}),
            storage_class_name="local-storage",
            volume_mode="Filesystem",
        ),
        persistent_volume_spec=kubernetes.V1PersistentVolumeSpec(
            access_modes=["ReadWriteOnce"],
            volume_mode="Filesystem",
            capacity={"storage": "1Gi"},
            local=kubernetes.V1LocalVolumeSource(path="/models"),
            persistent_volume_reclaim_policy="Delete",
            storage_class_name="local-storage",
            node_affinity=affinity,
        ),
    )
    return V1alpha1LocalModelNodeGroup(
        api_version=API_VERSION,
        kind="LocalModelNodeGroup",
        metadata=kubernetes.V1ObjectMeta(name=name),
        spec=spec,
    )


def _cache(name: str, uri: str) -> V1alpha1LocalModelCache:
    return V1alpha1LocalModelCache(
        api_version=API_VERSION,
        kind="LocalModelCache",
        metadata=kubernetes.V1ObjectMeta(name=name),
        spec=V1alpha1LocalModelCacheSpec(
            model_size="1Mi", node_groups=[name], source_model_uri=uri
        ),
    )


def _namespace_cache(name: str, namespace: str, uri: str) -> V1alpha1LocalModelNamespaceCache:
    return V1alpha1LocalModelNamespaceCache(
        api_version=API_VERSION,
        kind="LocalModelNamespaceCache",
        metadata=kubernetes.V1ObjectMeta(name=name, namespace=namespace),
        spec=V1alpha1LocalModelNamespaceCacheSpec(
            model_size="1Mi", node_groups=[name], source_model_uri=uri
        ),
    )


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))  # noqa: T201
