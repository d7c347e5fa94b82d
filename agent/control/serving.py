"""Whether a copy serves its requesters, and for which of them downloads and checks begin. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.disk.on_disk import Found
from agent.structs.failures import NODE_KINDS, FailureKind
from agent.structs.grants import Granted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.disk.on_disk import OnDisk
    from agent.structs.manifest import Manifest
    from agent.structs.requests import Failure, Request, Requester


def serves(
    copy: OnDisk,
    request: Request | None,
    failures: Mapping[Requester, Failure],
    *,
    in_use: bool,
) -> bool:
    """Whether a copy is whole and shown, has the requested hash, and is not outlived.

    It is outlived where the source has another version by now. `failures` are those of the
    requesters; `in_use` is whether a pod may mount the copy.
    """
    if copy.is_unreadable:
        # The copy may be whole: nothing replaces it on a guess.
        return True
    if copy.found is not Found.PUBLISHED or copy.manifest is None:
        return False
    if request is None:
        return True
    if copy.lacks_view:
        # The last step of its publication, which the next attempt makes.
        return False
    if not in_use and _is_outlived(copy.manifest, request, failures):
        return False
    return request.may_accept(copy.manifest.hash)


def attempts(request: Request, copy: OnDisk) -> Request:
    """The request as far as downloads may be made for it; requesters that had the copy come first.

    Where a LocalModelCache is served from a folder, its own sources alone fill and repair it, also
    while they fail. Of the others, those come first that begin before the others' turn.
    """
    granted = Granted(copy.access) if copy.access else ()
    order = sorted(request.deciding, key=lambda one: (one not in granted, one in request.suspended))
    return replace(request, requesters=tuple(order))


def awaits_turn(attempts: Request, copy: OnDisk) -> bool:
    """Whether no download begins for these attempts before the node's turn.

    The repair of a damaged copy does not wait: the model was here, and little of it is fetched.
    Nor does a copy that lacks its view.
    """
    return attempts.is_suspended and copy.found is not Found.DAMAGED and not copy.lacks_view


def asking(
    request: Request, granted: Granted, *, awaited: bool = False
) -> tuple[tuple[Requester, bool], ...]:
    """The requesters whose sources are asked about a copy, and whether each may have it already.

    No LocalModelCache is served from what a namespace fetched while it waits, and none loses what
    it has. A namespace does not wait for the node's turn where a pod waits for the model (awaited).
    """
    found = ((one, one in granted) for one in request.requesters)
    return tuple(
        (one, has_it)
        for one, has_it in found
        if (has_it or awaited or one not in request.suspended if one.namespace else not has_it)
    )


def is_withdrawn(
    manifest: Manifest, request: Request, failures: Mapping[Requester, Failure]
) -> bool:
    """Whether a whole copy must not stay where pods mount it: its requesters may not have it.

    A LocalModelCache is never served from what a namespace fetched and its own source does not
    confirm; and nobody from what the source has taken back from all.
    """
    access = manifest.access
    if access is None:
        return False
    granted = Granted(access)
    if not any(one in granted for one in request.requesters):
        # Those who had it are gone, and claims of the others may lead there. What their source
        # confirms comes back without a download.
        return True
    if not request.administrators:
        return False
    return all(
        one not in granted and one in failures and failures[one].error.kind not in NODE_KINDS
        for one in request.administrators
    )


def _is_outlived(
    manifest: Manifest, request: Request, failures: Mapping[Requester, Failure]
) -> bool:
    """Whether no deciding requester may have the copy, and the source has another version."""
    has_another = any(
        failures[one].error.kind is FailureKind.OTHER_VERSION
        for one in request.deciding
        if one in failures
    )
    if not has_another:
        return False
    granted = Granted(manifest.access)
    return not any(one in granted for one in request.deciding)
