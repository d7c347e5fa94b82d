"""What a download does with its peers: the digests they know, and the listing they remember."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.structs.failures import DownloadError, FailureKind
from agent.structs.grants import grant_for
from agent.structs.remote import RemoteFile

if TYPE_CHECKING:
    from agent.structs.exchange import Exchange, PeerGroup
    from agent.structs.remote import Body, RemoteModel
    from agent.structs.requests import Request
    from agent.structs.verified import VerifiedManifest

# Failures after which a model is listed by its verified manifest: the origin cannot be asked. A
# refusal is an answer.
_OUTAGES = {FailureKind.UNREACHABLE, FailureKind.THROTTLED}


class Sharing:
    """The exchange of one download with its peers. Without peers, it changes nothing."""

    def __init__(self, request: Request, peers: PeerGroup | None) -> None:
        self._request = request
        self._peers = peers
        self._exchange: Exchange | None = None
        self._manifest: VerifiedManifest | None = None
        # Bytes of this attempt from peers and from the origin.
        self.from_peers = 0
        self.from_origin = 0
        # Whether the listing is that of the verified manifest.
        self.origin_asked = True
        # Whether digests of the verified manifest were used.
        self.by_manifest = False

    @property
    def exchange(self) -> Exchange | None:
        """The exchange, which is begun at the first call; None if the groups have no peers."""
        if self._exchange is None and self._peers is not None:
            request = self._request
            self._exchange = self._peers.exchange(
                request.key, request.groups, grant_for(request.requester)
            )
        return self._exchange

    def end(self) -> None:
        """Leave the peers. What was published is served from then on."""
        if self._exchange is not None:
            self._exchange.end()
        self._exchange = None

    def with_digests(self, remote: RemoteModel) -> RemoteModel:
        """The listing with the digests of the verified manifest, where it is of the same files."""
        if all(file.sha256 is not None for file in remote.files):
            return remote
        manifest = self._verified()
        if manifest is None or manifest.origin != remote.origin:
            return remote
        self.by_manifest = True
        return Verified(remote, manifest)

    def remembered(self, failure: DownloadError) -> RemoteModel:
        """The listing of the verified manifest, where the origin cannot be asked.

        Raises the failure where there is none. A namespace's credentials are checked at the origin,
        so only models of LocalModelCaches come without it.
        """
        if failure.kind not in _OUTAGES or self._request.requester.namespace:
            raise failure
        manifest = self._verified()
        if manifest is None:
            raise failure
        self.origin_asked, self.by_manifest = False, True
        return Remembered(manifest, failure)

    def _verified(self) -> VerifiedManifest | None:
        if self._manifest is None and self._request.verified and self.exchange is not None:
            manifest = self.exchange.manifest(self._request.verified)
            # A node may tell any manifest, but none that has the hash of another model.
            if (
                manifest is not None
                and manifest.uri == self._request.uri
                and self._request.accepts(manifest.model_hash)
            ):
                self._manifest = manifest
        return self._manifest


class Verified:
    """A listing with the digests of a verified manifest, for files of the same version.

    A file is pinned by its version: without one, it may have any content by now.
    """

    def __init__(self, whole: RemoteModel, manifest: VerifiedManifest) -> None:
        known: dict[tuple[str, int | None, str | None], str] = {
            (file.path, file.size, file.version): file.sha256 for file in manifest.files
        }
        self.files = tuple(
            replace(file, verified=known.get((file.path, file.size, file.version)))
            if file.version is not None and file.sha256 is None
            else file
            for file in whole.files
        )
        self.origin, self.version = whole.origin, whole.version
        self.read = whole.read


class Remembered:
    """The listing of a verified manifest, for a model whose origin cannot be asked."""

    def __init__(self, manifest: VerifiedManifest, failure: DownloadError) -> None:
        self._failure = failure
        self.origin = manifest.origin
        self.version = None
        self.files = tuple(
            RemoteFile(
                path=file.path,
                location=file.path,
                size=file.size,
                version=file.version,
                verified=file.sha256,
            )
            for file in manifest.files
        )

    def read(self, file: RemoteFile, _start: int, _end: int | None) -> Body:
        """Raises DownloadError: only peers have the file."""
        raise DownloadError(
            self._failure.kind,
            f"{file.path} comes from no peer, and its origin cannot be asked: "
            f"{self._failure.message}",
            hides=self._failure.hides,
        )
