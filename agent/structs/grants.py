"""Who may be told that a copy is here: those whose credentials its source has accepted. Pure.

A model's folder is named after its URI alone, so caches of several namespaces share a copy. A copy
says where it came from and who may have it; everybody else is asked about at the source first.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Protocol

from localmodel.agent.structs.failures import DownloadError, FailureKind, public_uri
from localmodel.agent.structs.manifest import Access, Grant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from localmodel.agent.structs.manifest import Manifest
    from localmodel.agent.structs.requests import Requester


class ListedFile(Protocol):
    """A file of a model, at its source or on the disk."""

    @property
    def path(self) -> str:
        """Its place in the model."""
        ...

    @property
    def size(self) -> int | None:
        """Bytes; None: not told."""
        ...

    @property
    def version(self) -> str | None:
        """What pins it at its source."""
        ...


class Listing(Protocol):
    """What a source tells of a model: see agent.structs.remote.RemoteModel."""

    @property
    def files(self) -> Sequence[ListedFile]:
        """Its files."""
        ...

    @property
    def origin(self) -> str:
        """The server."""
        ...


def grant_for(requester: Requester) -> Grant:
    """What this requester has, once its credentials were accepted."""
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
    """The access to a copy that was fetched from there with the credentials of this requester."""
    return Access(
        origin=remote.origin, listing=_listing(remote.files), grants=(grant_for(requester),)
    )


class Granted:
    """Who may have a copy: made once for each copy, as many may ask.

    LocalModelCaches are the administrator's: what one of them was granted, all have, and so they
    have a copy of which nothing is known.
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
    """The server that a copy must come from again, if a requester fetches it; None: any.

    A folder is served from the server of the first: claims of those who have the copy lead to it
    also while it is damaged or evicted. `asked` are those who ask for it. The administrator's
    server always counts.
    """
    if access is None or not requester.namespace:
        return None
    granted = Granted(access)
    others = (one for one in asked if one.namespace not in {"", requester.namespace})
    return access.origin if any(one in granted for one in others) else None


def with_grant(
    manifest: Manifest, origin: str, requester: Requester, asked: Iterable[Requester]
) -> Manifest:
    """The manifest of a copy after its source has accepted this requester too.

    What others have stays, but for other credentials of the same namespace that no cache names any
    more: `asked` are those that are named.
    """
    access = _access(manifest, origin)
    named = {grant_for(one) for one in asked}
    mine = grant_for(requester)
    kept = tuple(
        grant
        for grant in access.grants
        if grant != mine and (grant.namespace != mine.namespace or grant in named)
    )
    return manifest.model_copy(
        update={"access": access.model_copy(update={"grants": (*kept, mine)})}
    )


def without_grant(manifest: Manifest, requester: Requester, asked: Iterable[Requester]) -> Manifest:
    """The manifest of a copy after this requester was refused.

    What those have stays who ask for it now: a copy of which only others were told is nobody's.
    """
    access = manifest.access
    if access is None:
        return manifest
    left = {grant_for(one) for one in asked} - {grant_for(requester)}
    namespaces = {grant.namespace for grant in left}
    kept = tuple(
        grant
        for grant in access.grants
        if grant in left or (not grant.namespace and "" in namespaces)
    )
    return manifest.model_copy(update={"access": access.model_copy(update={"grants": kept})})


def check_same(manifest: Manifest, remote: Listing, requester: Requester) -> None:
    """Raises DownloadError (OtherVersion) unless a requester's source lists what a copy is made of.

    The server counts too: whoever may name an endpoint could list there whatever is needed.
    """
    uri = public_uri(manifest.uri)
    if manifest.access is None and requester.chooses_server:
        # Nothing says where it came from, and that server could list whatever is needed.
        raise from_elsewhere(uri, remote.origin)
    access = _access(manifest, remote.origin)
    same_server = access.origin == remote.origin
    if same_server and access.listing == _listing(remote.files):
        return
    if not requester.namespace:
        raise DownloadError(
            FailureKind.OTHER_VERSION,
            f"the copy of {uri} on this node was fetched for a cache of a namespace, and is "
            f"another one than {remote.origin} has: it is downloaded anew by itself once no pod of "
            "the node mounts it, so end the pods that do",
        )
    if not same_server:
        raise from_elsewhere(uri, remote.origin)
    raise DownloadError(
        FailureKind.OTHER_VERSION,
        f"{uri} is now another version than the copy on this node, which another cache uses: "
        "it is downloaded anew when no cache uses that copy, so have those caches deleted, or "
        "make a cache with another sourceModelUri",
    )


def from_elsewhere(uri: str, origin: str) -> DownloadError:
    """The failure where a folder is that of another namespace's copy, and this is its server not.

    `uri` is for messages; `origin` is the server that the requester's credentials lead to.
    """
    return DownloadError(
        FailureKind.OTHER_VERSION,
        f"the copy of {uri} on this node is from another server than {origin}, to which this "
        "cache's credentials lead: name credentials for the same server, or make a cache with "
        "another sourceModelUri",
    )


def is_same_copy(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests are of the same copy: their digests and grants may differ.

    One that says nothing of its server may be from any.
    """
    origins = {manifest.access.origin for manifest in (one, other) if manifest.access}
    return _listing(one.files) == _listing(other.files) and len(origins) <= 1


def _access(manifest: Manifest, origin: str) -> Access:
    """That of the manifest; of one that says nothing, what its files tell.

    A copy of which nothing is known is the administrator's.
    """
    return manifest.access or Access(
        origin=origin, listing=_listing(manifest.files), grants=(Grant(),)
    )


def _listing(files: Iterable[ListedFile]) -> str:
    return _digest(sorted((file.path, file.size, file.version or "") for file in files))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
