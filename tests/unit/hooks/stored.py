"""Objects as the hooks read them, made from the types of crds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec import Raw

from crds.base import API_VERSION
from crds.cache import LocalModelCache, LocalModelNamespaceCache
from hooks.reading import parse_cache, parse_node

if TYPE_CHECKING:
    from crds.base import Resource
    from crds.cache import AnyCache
    from crds.node import LocalModelNode
    from hooks.observed import Cache, Node


def read_cache(cache: AnyCache) -> Cache:
    return parse_cache(_raw(cache))


def read_node(node: LocalModelNode) -> Node:
    return parse_node(_raw(node))


def _raw(obj: Resource) -> Raw:
    # The API server's default, without which the hooks treat the object as one of another CRD.
    whole = {"status": {"observedGeneration": -1}} | obj.to_json()
    whole["status"] = {"observedGeneration": -1} | whole["status"]
    head = {"apiVersion": API_VERSION, "kind": type(obj).__name__}
    return Raw(json.dumps(head | whole).encode())


def cache_in_two_groups(namespace: str = "", name: str = "llama") -> Cache:
    """A cache in gpu and cpu, of a namespace if that is given."""
    kind = LocalModelNamespaceCache if namespace else LocalModelCache
    return read_cache(
        kind.model_validate(
            {
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "sourceModelUri": "s3://models/llama",
                    "modelSize": "1Gi",
                    "nodeGroups": ["gpu", "cpu"],
                },
            }
        )
    )
