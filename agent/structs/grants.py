"""Decides which requesters may use a copy: those whose credentials its source accepted. Pure.

A model's folder is named after its URI alone, so caches of several namespaces share a copy. The
manifest of a copy records its origin and its grants. For a requester without a grant, the agent
asks the source first.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from agent.structs.failures import DownloadError, FailureKind, public_uri
from agent.structs.manifest import Access, Grant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.structs.manifest import Manifest
    from agent.structs.requests import Requester


class ListedFile(Protocol):
    """A file of a model, at its source or on the disk."""

    @property
    def path(self) -> str:
        """Its path in the model."""
        ...

    @property
    def size(self) -> int | None:
        """Bytes; None: the source does not report the size."""
        ...

    @property
    def version(self) -> str | None:
        """The version that pins the file at its source."""
        ...


class Listing(Protocol):
    """The listing of a model at a source: see agent.structs.remote.RemoteModel."""

    @property
    def files(self) -> Sequence[ListedFile]:
        """The files of the model."""
        ...

    @property
    def origin(self) -> str:
        """The server that the files come from."""
        ...


def grant_for(requester: Requester) -> Grant:
    """The grant of a requester whose credentials the source accepted."""
    named = requester.credentials
    if named is None:
        return Grant(namespace=requester.namespace)
    return Grant(
        namespace=requester.namespace,
        service_account=named.service_account,
        storage_key=named.storage_key,
        parameters=_digest(named.parameters) if named.parameters else None,
    )


def first_access(remote: Listing, requester: Requester) -> Access:
    """The access record of a copy that was downloaded with this requester's credentials."""
    return Access(
        origin=remote.origin, listing=_listing(remote.files), grants=(grant_for(requester),)
    )


class Granted:
    """The set of requesters that may use a copy, made once per copy as there may be many.

    LocalModelCaches belong to the administrator: a grant to one of them counts for all, and a copy
    without an access record is granted to them.
    """

    def __init__(self, access: Access | None) -> None:
        self._grants = frozenset(access.grants if access else (Grant(),))
        self.namespaces = frozenset(grant.namespace for grant in self._grants)
        self._administrator = "" in self.namespaces

    def __contains__(self, requester: Requester) -> bool:
        if not requester.namespace and self._administrator:
            return True
        return grant_for(requester) in self._grants


def bound_origin(
    access: Access | None, requester: Requester, asked: Iterable[Requester]
) -> str | None:
    """The origin that this requester must download a copy from again; None: any.

    The origin of the first download keeps the folder, as claims of the granted requesters lead to
    the folder also while the copy is damaged or evicted. `asked` are the requesters of all entries.
    The administrator may use any origin.
    """
    if access is None or not requester.namespace:
        return None
    granted = Granted(access)
    others = (other for other in asked if other.namespace not in {"", requester.namespace})
    return access.origin if any(other in granted for other in others) else None


def with_grant(
    manifest: Manifest, origin: str, requester: Requester, asked: Iterable[Requester]
) -> Manifest:
    """The manifest of a copy with a grant for this requester, after the source accepted it.

    Grants of other requesters stay, except those of the same namespace for credentials that no
    cache names any more. `asked` are the requesters of all entries.
    """
    access = _access(manifest, origin)
    named = {grant_for(other) for other in asked}
    mine = grant_for(requester)
    kept = tuple(
        grant
        for grant in access.grants
        if grant != mine and (grant.namespace != mine.namespace or grant in named)
    )
    return replace(manifest, access=replace(access, grants=(*kept, mine)))


def without_grant(manifest: Manifest, requester: Requester, asked: Iterable[Requester]) -> Manifest:
    """The manifest of a copy without the grant of this requester, after the source refused it.

    Only grants of requesters in `asked`, those of all entries, stay.
    """
    access = manifest.access
    if access is None:
        return manifest
    left = {grant_for(other) for other in asked} - {grant_for(requester)}
    namespaces = {grant.namespace for grant in left}
    kept = tuple(
        grant
        for grant in access.grants
        if grant in left or (not grant.namespace and "" in namespaces)
    )
    return replace(manifest, access=replace(access, grants=kept))


def check_same(manifest: Manifest, remote: Listing, requester: Requester) -> None:
    """Check that a requester's source lists the files of a copy, at the same origin.

    Raises DownloadError (OtherVersion). The origin must be the same, as a requester that chooses
    its server could list any files there.
    """
    uri = public_uri(manifest.uri)
    if manifest.access is None and requester.chooses_server:
        # The origin of the copy is not known, and the requester's own server may list any files.
        raise from_elsewhere(uri, remote.origin)
    access = _access(manifest, remote.origin)
    same_server = access.origin == remote.origin
    if same_server and access.listing == _listing(remote.files):
        return
    if not requester.namespace:
        raise DownloadError(
            FailureKind.OTHER_VERSION,
            f"the copy of {uri} on this node was downloaded for a namespace cache, and differs "
            f"from the model at {remote.origin}: it is downloaded again once no pod of the node "
            "mounts the copy, so end the pods that do",
        )
    if not same_server:
        raise from_elsewhere(uri, remote.origin)
    raise DownloadError(
        FailureKind.OTHER_VERSION,
        f"{uri} is now another version than the copy on this node, which another cache uses: "
        "it is downloaded again when no cache uses that copy, so have those caches deleted, or "
        "make a cache with another sourceModelUri",
    )


def from_elsewhere(uri: str, origin: str) -> DownloadError:
    """The failure where the folder holds another namespace's copy from another origin.

    `uri` is a public URI, `origin` the server that the requester's credentials lead to.
    """
    return DownloadError(
        FailureKind.OTHER_VERSION,
        f"the copy of {uri} on this node is from another server than {origin}, to which this "
        "cache's credentials lead: name credentials for the same server, or make a cache with "
        "another sourceModelUri",
    )


def is_same_copy(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests describe the same copy: their digests and grants may differ.

    A manifest without an access record may be from any origin.
    """
    origins = {manifest.access.origin for manifest in (one, other) if manifest.access}
    return _listing(one.files) == _listing(other.files) and len(origins) <= 1


def _access(manifest: Manifest, origin: str) -> Access:
    """The access record of a manifest, or one made from its files.

    A copy without a record is granted to the administrator.
    """
    return manifest.access or Access(
        origin=origin, listing=_listing(manifest.files), grants=(Grant(),)
    )


def _listing(files: Iterable[ListedFile]) -> str:
    return _digest(sorted((file.path, file.size, file.version or "") for file in files))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
