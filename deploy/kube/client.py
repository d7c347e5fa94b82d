"""The client reads, watches and changes objects. An object is a dict of its JSON.

    api = KubeClient.connect(Path("~/.kube/config").expanduser())
    for cache in api.list(CACHES):
        print(cache["metadata"]["name"])
    api.patch(NODES, "node-1", {"metadata": {"labels": {"pool": "gpu"}}})

A call that fails raises `deploy.kube.errors.ApiError` or one of its subclasses. The docstrings name
the subclasses that a caller may want to catch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import urllib3

from deploy.kube.errors import NotFoundError, UnansweredError, refusal
from deploy.kube.kinds import JsonPatch, Kind, KubeObject, Ref, ref_to, root
from deploy.kube.raw_client import APPLY, JSON, JSON_PATCH, MERGE_PATCH, READ_SECONDS, RawClient

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kubernetes.client import ApiClient

PAGE_OBJECTS = 500
# The columns that kubectl get prints, and the metadata of each object.
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_TABLE_QUERY = {"includeObject": "Metadata"}
WATCH_SECONDS = 300


class KubeClient(RawClient):
    """Reads, watches and changes objects. See RawClient for timeouts, and for calls by path.

    Make one by `KubeClient.connect`. Threads may share a client.
    """

    def __init__(self, client: ApiClient) -> None:
        """Use the address, the credentials and the connections of the library's client."""
        super().__init__(client)
        # By group version. Bounded by the group versions that the API server has.
        self._kinds: dict[str, tuple[Kind, ...]] = {}

    # Reads.

    def get(self, kind: Kind, name: str, namespace: str = "") -> KubeObject:
        """An object. Raises NotFoundError if the object or its kind does not exist."""
        path = kind.path(name, namespace)
        return self.request("GET", path, doing=f"reading {Ref(kind, name, namespace)}")

    def find(self, kind: Kind, name: str, namespace: str = "") -> KubeObject | None:
        """An object; None if the object or its kind does not exist."""
        try:
            return self.get(kind, name, namespace)
        except NotFoundError:
            return None

    def list(self, kind: Kind, namespace: str = "", *, labels: str = "") -> tuple[KubeObject, ...]:
        """All objects of a kind. Raises NotFoundError if the cluster does not know the kind.

        namespace: of the objects; empty means all namespaces. labels: a label selector, such as
        `pool=gpu,!spot` or `app in (a,b)`. Raises GoneError if the continue token expired between
        two pages of 500 objects: list again.
        """
        return self.snapshot(kind, namespace, labels=labels)[0]

    def find_all(
        self, kind: Kind, namespace: str = "", *, labels: str = ""
    ) -> tuple[KubeObject, ...]:
        """All objects of a kind, as by `list`; none if the cluster does not know the kind."""
        try:
            return self.list(kind, namespace, labels=labels)
        except NotFoundError:
            return ()

    def snapshot(
        self, kind: Kind, namespace: str = "", *, labels: str = ""
    ) -> tuple[tuple[KubeObject, ...], str]:
        """All objects of a kind, as by `list`, and the resourceVersion to watch from."""
        return self._pages(kind, namespace, "items", {"labelSelector": labels})

    def select(self, kind: Kind, namespace: str, query: dict[str, str]) -> tuple[KubeObject, ...]:
        """The objects of a kind that match the labelSelector and the fieldSelector of a query.

        namespace: empty means all. Raises as `list`.
        """
        return self._pages(kind, namespace, "items", query)[0]

    def metadata(self, path: str, *, seconds: float = READ_SECONDS) -> tuple[KubeObject, ...]:
        """All objects of a path with nothing but their metadata. Raises as `list`."""
        page = self.request("GET", path, doing=f"GET {path}", accept=METADATA, seconds=seconds)
        return tuple(page.get("items") or ())

    def table(self, kind: Kind) -> tuple[tuple[KubeObject, ...], str]:
        """The rows of a Table of all objects of a kind, and the resourceVersion to watch from.

        A row has what `kubectl get -o wide` prints of an object in `cells`, and the metadata of the
        object in `object`. Raises as `list`.
        """
        return self._pages(kind, "", "rows", _TABLE_QUERY, accept=TABLE)

    def _pages(
        self, kind: Kind, namespace: str, field: str, query: dict[str, str], accept: str = JSON
    ) -> tuple[tuple[KubeObject, ...], str]:
        found: list[KubeObject] = []
        where = f" in {namespace}" if namespace else ""
        query = query | {"limit": str(PAGE_OBJECTS)}
        while True:
            page = self.request(
                "GET",
                kind.path(namespace=namespace),
                doing=f"listing {kind.plural}{where}",
                query=query,
                accept=accept,
            )
            found += page.get(field) or ()
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return tuple(found), str(page["metadata"]["resourceVersion"])

    def watch(
        self,
        kind: Kind,
        version: str,
        namespace: str = "",
        *,
        labels: str = "",
        seconds: int = WATCH_SECONDS,
        table: bool = False,
    ) -> Iterator[tuple[str, KubeObject]]:
        """The changes after a resourceVersion, each as soon as the API server reports it.

        A change is a pair: ADDED, MODIFIED or DELETED, and the object. With BOOKMARK, the object
        has nothing but a newer metadata.resourceVersion. With table, each object of a change is a
        Table of one row: see `table`. The watch ends after `seconds`, or earlier
        if the API server ends it: watch again from the resourceVersion of the last pair. Raises
        GoneError if the resourceVersion is too old (call `snapshot` again), and UnansweredError if
        the connection breaks (watch again from the last pair).
        """
        doing = f"watching {kind.plural}"
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "timeoutSeconds": str(seconds),
        }
        path = kind.path(namespace=namespace)
        if table:
            query |= _TABLE_QUERY
        answer = self.send(
            "GET",
            path,
            doing,
            query=query,
            accept=TABLE if table else JSON,
            seconds=seconds + READ_SECONDS,
        )
        try:
            for line in answer:
                event = json.loads(line)
                obj: KubeObject = event["object"]
                if event["type"] == "ERROR":
                    code, reason = obj.get("code", 0), obj.get("reason", "")
                    raise refusal(doing, obj.get("message", ""), code, reason)
                yield event["type"], obj
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise UnansweredError(doing, f"the answer broke off: {error}") from None
        finally:
            answer.close()

    def kinds(self, api_version: str) -> tuple[Kind, ...]:
        """The kinds that the cluster serves now in a group version. May raise NotFoundError."""
        doing = f"looking for the kinds of {api_version}"
        found = self.request("GET", root(api_version), doing=doing)["resources"]
        names = {entry["name"] for entry in found}
        return tuple(
            Kind(
                api_version,
                entry["name"],
                entry["kind"],
                entry["namespaced"],
                has_status=f"{entry['name']}/status" in names,
            )
            for entry in found
            if "/" not in entry["name"]
        )

    def serves(self, kind: Kind) -> bool:
        """Whether the cluster serves a kind now."""
        try:
            return kind in self.kinds(kind.api_version)
        except NotFoundError:
            return False

    def kind_of(self, obj: KubeObject) -> Kind:
        """The kind of an object. Raises NotFoundError if the cluster does not know the kind.

        The client caches the kinds of a group version, and calls the API server only for a kind
        that is not cached.
        """
        api_version, name = obj["apiVersion"], obj["kind"]
        found = _named(name, self._kinds.get(api_version, ()))
        if found is None:
            self._kinds[api_version] = self.kinds(api_version)
            found = _named(name, self._kinds[api_version])
        if found is None:
            doing = f"looking for the kind {name}"
            raise NotFoundError(doing, f"{api_version} has no such kind", 404)
        return found

    # Changes. Each returns the object as it is stored afterwards; with dry_run, the API server
    # checks the change and stores nothing.

    def create(self, obj: KubeObject, *, dry_run: bool = False, strict: bool = False) -> KubeObject:
        """Create an object with metadata.name or metadata.generateName.

        strict: the API server refuses unknown fields instead of dropping them silently. Raises
        AlreadyExistsError.
        """
        query = {"dryRun": "All" if dry_run else "", "fieldValidation": "Strict" if strict else ""}
        metadata = obj["metadata"]
        name = metadata.get("name") or metadata["generateName"]
        ref = Ref(self.kind_of(obj), name, metadata.get("namespace", ""))
        path = ref.kind.path(namespace=ref.namespace)
        return self.request("POST", path, doing=f"creating {ref}", body=obj, query=query)

    def apply(
        self, obj: KubeObject, *, manager: str, subresource: str = "", dry_run: bool = False
    ) -> KubeObject:
        """Create an object, or change those of its fields that `obj` has: server-side apply.

        manager: the field manager. On a conflict, it takes a field from its other managers (force).
        """
        query = {"fieldManager": manager, "force": "true", "dryRun": "All" if dry_run else ""}
        ref = ref_to(self.kind_of(obj), obj)
        path = ref.kind.path(ref.name, ref.namespace, subresource)
        doing = f"applying {ref}"
        return self.request("PATCH", path, doing=doing, body=obj, query=query, content_type=APPLY)

    def replace(
        self, obj: KubeObject, *, manager: str = "", subresource: str = "", dry_run: bool = False
    ) -> KubeObject:
        """Replace a stored object by a whole new one.

        manager: the field manager. Raises ConflictError if `obj` has a metadata.resourceVersion
        and the stored object has another one.
        """
        query = {"fieldManager": manager, "dryRun": "All" if dry_run else ""}
        ref = ref_to(self.kind_of(obj), obj)
        path = ref.kind.path(ref.name, ref.namespace, subresource)
        return self.request("PUT", path, doing=f"replacing {ref}", body=obj, query=query)

    def patch(
        self,
        kind: Kind,
        name: str,
        change: KubeObject | JsonPatch,
        namespace: str = "",
        *,
        subresource: str = "",
    ) -> KubeObject:
        """Change an object by a patch.

        change: a dict is a merge patch (RFC 7386, None removes a field), a list is a JSON patch
        (RFC 6902). Raises NotFoundError, and InvalidError if a test of a JSON patch fails.
        """
        return self.request(
            "PATCH",
            kind.path(name, namespace, subresource),
            doing=f"changing {Ref(kind, name, namespace)}",
            body=change,
            content_type=JSON_PATCH if isinstance(change, list) else MERGE_PATCH,
        )

    def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        foreground: bool = False,
        grace_seconds: int | None = None,
    ) -> None:
        """Request the deletion of an object, which may wait for finalizers and dependents.

        uid: delete the object only if it has this uid, else raise ConflictError. foreground: the
        object stays until its dependents are gone. grace_seconds: for a pod; None means the pod's
        own. Raises NotFoundError.
        """
        options: KubeObject = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground" if foreground else "Background",
        }
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        doing = f"deleting {Ref(kind, name, namespace)}"
        self.request("DELETE", kind.path(name, namespace), doing=doing, body=options)


def _named(name: str, kinds: Iterable[Kind]) -> Kind | None:
    return next((kind for kind in kinds if kind.name == name), None)
