"""What `why` reads beside the snapshot: objects of one cache and one node."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from deploy.kube.errors import ForbiddenError, NotFoundError
from deploy.kube.kinds import CLAIMS, DEPLOYMENTS, EVENTS, NODES, PODS, STATEFUL_SETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import Kind, KubeObject
    from deploy.kubectl.snapshot import CacheName, Objects

# Labels of deploy/base and metacontroller/install.
_NAME = "app.kubernetes.io/name"
_CACHE_LABEL = "serving.kserve.io/localmodel"


@dataclass(frozen=True)
class Details:
    """Objects of one cache and one node; None: the user may not read them, or nobody has read them.

    node: the whole Node. claims: those with the label of the cache. pods: those that are Pending.
    events: those of the cache, its groups, and the node's LocalModelNode. agents: the agent's pods
    on the node. hooks: their Deployments. metacontrollers: their StatefulSets.
    """

    node: KubeObject | None = None
    claims: Objects | None = None
    pods: Objects | None = None
    events: Objects | None = None
    agents: Objects | None = None
    hooks: Objects | None = None
    metacontrollers: Objects | None = None


NO_DETAILS = Details()


def read_details(
    client: KubeClient, cache: CacheName, groups: tuple[str, ...], node: str
) -> Details:
    """Read the details, all at the same time. What the user may not read is None.

    node: empty means none. Raises ApiError.
    """
    from hooks.naming import label_value  # noqa: PLC0415 - nothing else here needs the hooks

    namespace, name = cache
    about = [("LocalModelNamespaceCache" if namespace else "LocalModelCache", name)]
    about += [("LocalModelNodeGroup", group) for group in groups]
    about += [("LocalModelNode", node)] if node else []
    with ThreadPoolExecutor(8) as pool:

        def read(kind: Kind, where: str = "", **query: str) -> Callable[[], Objects | None]:
            return pool.submit(partial(_find, client, kind, where, query)).result

        events = [
            read(EVENTS, fieldSelector=f"involvedObject.kind={kind},involvedObject.name={one}")
            for kind, one in about
        ]
        claims = read(CLAIMS, namespace, labelSelector=f"{_CACHE_LABEL}={label_value(name)}")
        pods = read(PODS, namespace, fieldSelector="status.phase=Pending")
        agents = read(
            PODS,
            labelSelector=f"{_NAME}=localmodel-agent",
            fieldSelector=f"spec.nodeName={node}",
        )
        hooks = read(DEPLOYMENTS, labelSelector=f"{_NAME}=localmodel-hooks")
        metacontrollers = read(STATEFUL_SETS, labelSelector=f"{_NAME}=metacontroller")
        nodes = read(NODES, fieldSelector=f"metadata.name={node}")
        found = [done() for done in events]
        return Details(
            node=next(iter(nodes() or ()), None) if node else None,
            claims=claims(),
            pods=pods(),
            events=None if None in found else tuple(e for one in found for e in one or ()),
            agents=agents() if node else None,
            hooks=hooks(),
            metacontrollers=metacontrollers(),
        )


def _find(client: KubeClient, kind: Kind, namespace: str, query: dict[str, str]) -> Objects | None:
    try:
        return client.select(kind, namespace, query)
    except (ForbiddenError, NotFoundError):
        return None
