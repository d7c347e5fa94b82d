"""The objects of a cluster that the plugin shows, as they were at one time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.kube.errors import ApiError, ForbiddenError, GoneError, NotFoundError
from deploy.kube.kinds import (
    CACHES,
    GROUPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    NODES,
    PLACEMENTS,
    Kind,
    KubeObject,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from deploy.kube.client import KubeClient

# The kinds of localmodel, and Nodes.
KINDS = (CACHES, NAMESPACE_CACHES, GROUPS, LOCAL_MODEL_NODES, PLACEMENTS, NODES)
OWN_KINDS = KINDS[:-1]
# A list of several pages begins anew if its continue token expires.
_LIST_TRIES = 3

# Namespace and name of a cache; the namespace of a LocalModelCache is empty.
CacheName = tuple[str, str]
Objects = tuple[KubeObject, ...]


@dataclass(frozen=True)
class Snapshot:
    """All objects of localmodel's kinds, and the Nodes, as dicts of their JSON.

    nodes: of a Node only `metadata` without annotations, `spec.unschedulable`, and the condition
    Ready in `status.conditions`, without its times. at: when the API server answered, by its
    clock. forbidden: the error for each kind (by its name, such as Node) that the user may not
    list. absent: the names of the kinds that the cluster does not know. The objects of a forbidden
    or absent kind are missing, which does not mean that there are none.
    """

    caches: Objects = ()
    namespace_caches: Objects = ()
    groups: Objects = ()
    local_model_nodes: Objects = ()
    placements: Objects = ()
    nodes: Objects = ()
    at: datetime = field(default_factory=lambda: datetime.now(tz=UTC))
    forbidden: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()

    @cached_property
    def cache_by_name(self) -> dict[CacheName, KubeObject]:
        """Both kinds of caches, by namespace and name."""
        caches = (*self.caches, *self.namespace_caches)
        return {(meta.namespace(one), meta.name(one)): one for one in caches}

    @cached_property
    def group_by_name(self) -> dict[str, KubeObject]:
        """The LocalModelNodeGroups."""
        return _by_name(self.groups)

    @cached_property
    def local_model_node_by_name(self) -> dict[str, KubeObject]:
        """The LocalModelNodes."""
        return _by_name(self.local_model_nodes)

    @cached_property
    def placement_by_name(self) -> dict[str, KubeObject]:
        """The LocalModelPlacements; a placement has the name of its group."""
        return _by_name(self.placements)

    @cached_property
    def node_by_name(self) -> dict[str, KubeObject]:
        """The Nodes."""
        return _by_name(self.nodes)

    def knows(self, kind: Kind) -> bool:
        """Whether the objects of a kind could be read: a missing object does not exist."""
        return kind.name not in self.forbidden and kind.name not in self.absent


class NotInstalledError(ApiError):
    """The cluster does not know localmodel's kinds. The message says what to do."""


def read(client: KubeClient, namespace: str = "") -> Snapshot:
    """Read all kinds at the same time, in pages.

    namespace: of the LocalModelNamespaceCaches; empty means all, or none if the user may not list
    those of all namespaces. Raises NotInstalledError, ForbiddenError if the user may list none of
    localmodel's kinds, and ApiError.
    """
    return read_versions(client, namespace)[0]


def read_versions(client: KubeClient, namespace: str = "") -> tuple[Snapshot, dict[str, str]]:
    """A snapshot as by `read`, and for each kind that was read the resourceVersion of its list."""
    with ThreadPoolExecutor(len(KINDS)) as pool:
        clock = pool.submit(server_time, client)
        reads = {kind: pool.submit(list_kind, client, kind, namespace) for kind in KINDS}
        found: dict[str, Objects] = {}
        versions: dict[str, str] = {}
        forbidden: dict[str, str] = {}
        absent: set[str] = set()
        refusal: ForbiddenError | None = None
        for kind, done in reads.items():
            try:
                found[kind.name], versions[kind.name] = done.result()
            except ForbiddenError as error:
                forbidden[kind.name] = error.message
                refusal = refusal or error
            except NotFoundError:
                absent.add(kind.name)
        at = clock.result()
    if refusal and all(kind.name in forbidden for kind in OWN_KINDS):
        raise refusal
    if not any(kind.name in found for kind in OWN_KINDS):
        raise NotInstalledError(
            "listing LocalModelCaches",
            f"the API server {client.server} does not know this kind: localmodel is not installed "
            "there; use another --context, or install localmodel",
        )
    return snapshot_of(found, at=at, forbidden=forbidden, absent=absent), versions


def snapshot_of(
    found: Mapping[str, Iterable[KubeObject]],
    *,
    at: datetime,
    forbidden: Mapping[str, str] | None = None,
    absent: Iterable[str] = (),
) -> Snapshot:
    """A snapshot of objects by the names of their kinds, such as LocalModelCache."""
    return Snapshot(
        caches=tuple(found.get(CACHES.name, ())),
        namespace_caches=tuple(found.get(NAMESPACE_CACHES.name, ())),
        groups=tuple(found.get(GROUPS.name, ())),
        local_model_nodes=tuple(found.get(LOCAL_MODEL_NODES.name, ())),
        placements=tuple(found.get(PLACEMENTS.name, ())),
        nodes=tuple(found.get(NODES.name, ())),
        at=at,
        forbidden=forbidden or {},
        absent=frozenset(absent),
    )


def list_kind(client: KubeClient, kind: Kind, namespace: str = "") -> tuple[Objects, str]:
    """All objects of one of KINDS, and the resourceVersion to watch from.

    namespace: as for `read`. Raises ForbiddenError, NotFoundError and other ApiErrors.
    """
    for attempt in range(1, _LIST_TRIES + 1):
        try:
            if kind == NODES:
                # A tenth of the bytes of Nodes, which list their images.
                rows, version = client.table(kind)
                return tuple(node_of_row(row) for row in rows), version
            return client.snapshot(kind, namespace if kind.namespaced else "")
        except GoneError:
            if attempt == _LIST_TRIES:
                raise
    raise AssertionError


def node_of_row(row: KubeObject) -> KubeObject:
    """The Node of a row of its Table: see Snapshot."""
    # Such as "NotReady,SchedulingDisabled"; the columns begin with Name and Status.
    ready, *more = str(row["cells"][1]).split(",")
    status = {"Ready": "True", "NotReady": "False"}.get(ready, "Unknown")
    metadata = {
        key: value
        for key, value in row["object"]["metadata"].items()
        if key not in {"annotations", "managedFields"}
    }
    return {
        "apiVersion": NODES.api_version,
        "kind": NODES.name,
        "metadata": metadata,
        "spec": {"unschedulable": True} if "SchedulingDisabled" in more else {},
        "status": {"conditions": [{"type": "Ready", "status": status}]},
    }


def server_time(client: KubeClient) -> datetime:
    """The API server's time, rounded to seconds; this machine's, if the answer has none.

    Times in the objects are compared with it, so that a wrong clock of this machine does no harm.
    """
    try:
        answer = client.send("GET", "/version", "reading the version of the API server")
    except ForbiddenError:
        return datetime.now(tz=UTC)
    stamp = answer.headers.get("Date")
    answer.drain_conn()
    answer.release_conn()
    return parsedate_to_datetime(stamp) if stamp else datetime.now(tz=UTC)


def _by_name(objects: Iterable[KubeObject]) -> dict[str, KubeObject]:
    return {meta.name(one): one for one in objects}
