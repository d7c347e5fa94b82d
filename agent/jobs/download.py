"""One download, from the listing to the published model."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agent.disk.on_disk import Found, bad_files
from agent.disk.repair import has_others
from agent.disk.watch import FULL, disk_failure
from agent.engine.job import FileChangedError
from agent.jobs.adoption.adopting import Adopting
from agent.jobs.archive.model import unpack_model
from agent.jobs.listing import (
    InOneAnswer,
    PartialListing,
    check_tree,
    is_archive,
    is_listed,
    total_size,
)
from agent.jobs.reservations import Coming, NoRoomError
from agent.jobs.sharing import Sharing
from agent.sources.readable import check_readable
from agent.sources.waits import LISTING_SECONDS, listing_bytes, waiting
from agent.structs.adoption import foreign
from agent.structs.failures import CancelledError, DownloadError, FailureKind, public_uri
from agent.structs.grants import Granted, first_access, from_elsewhere, grant_for
from agent.structs.log import log
from agent.structs.manifest import Manifest, ManifestFile, make_manifest
from agent.structs.sizes import in_blocks
from crds.quantity import format_quantity

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from agent.disk.on_disk import OnDisk
    from agent.disk.staging import Staging
    from agent.disk.store import Store
    from agent.engine.engine import Engine
    from agent.engine.job import Fetched
    from agent.jobs.adoption.adopting import Refusals
    from agent.sources import Sources
    from agent.structs.adoption import Adopted
    from agent.structs.credentials import Credentials
    from agent.structs.exchange import PeerGroup
    from agent.structs.remote import RemoteFile, RemoteModel
    from agent.structs.requests import Request

# How often a source may change in the middle of one download before it counts as a failure.
MAX_CHANGES = 3

# After these failures, staging is deleted: it is of no use, and its space may be needed.
_STARTS_OVER = {FailureKind.NO_SPACE, FailureKind.UNSUPPORTED}


@dataclass(frozen=True)
class Progress:
    """Bytes on the disk, and the model's size in bytes; None while that is not known."""

    done: int
    total: int | None
    # Whether nothing is fetched: a foreign folder is compared with the source.
    comparing: bool = False


class Download:
    """One attempt to download a model. The next attempt continues with what it leaves in staging.

    A foreign folder at the model's path is adopted if it is the model; without `refusals`, it is
    left alone. `origin` is the server that the model must come from; None: any. `received` is
    called with the bytes that came from there since its last call, `reserve` with the bytes of the
    disk that are needed, and what they are for. `is_urgent` says whether the model comes before
    others from its origin now.
    """

    def __init__(
        self,
        request: Request,
        *,
        sources: Sources,
        store: Store,
        engine: Engine,
        credentials: Callable[[], Credentials],
        cancelled: threading.Event,
        is_urgent: Callable[[], bool] = lambda: False,
        in_use: bool = False,
        origin: str | None = None,
        report: Callable[[Progress], None],
        received: Callable[[int], None] = lambda _size: None,
        reserve: Callable[[int, Coming], None] = lambda _size, _coming: None,
        refusals: Refusals | None = None,
        peers: PeerGroup | None = None,
        received_from_peers: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._request = request
        self._sources = sources
        self._store = store
        self._engine = engine
        self._credentials = credentials
        self._cancelled = cancelled
        self._is_urgent = is_urgent
        self._in_use = in_use
        self._origin = origin
        self._report = report
        self._received = received
        self._reserve = reserve
        self._refusals = refusals
        self._sharing = Sharing(request, peers)
        self._received_from_peers = received_from_peers
        self._done = 0
        self._total: int | None = None
        # The reserved bytes, and what they are for.
        self._room, self._coming = 0, Coming.MODEL
        # Bytes of the model in a folder that is to be adopted: they are not in staging.
        self._beside = 0
        # Set by `run` if it adopted a folder.
        self.adopted: Adopted | None = None

    def run(self) -> Manifest:
        """Download and publish the model. Returns its manifest.

        Raises CancelledError, DownloadError, and what `reserve` raises, which is called once the
        source has listed the sizes, before the first byte is requested.
        """
        staging: Staging | None = None
        try:
            staging = self._store.staging(self._request.key)
            return self._run(staging)
        except OSError as error:
            failure = self._disk_failure(error)
            self._after(failure)
            raise failure from error
        except FileChangedError as change:
            raise change.failure from None
        except DownloadError as failure:
            if self._cancelled.is_set():
                # Connections that the cancellation aborted look like failures of the origin.
                raise CancelledError from None
            self._after(failure)
            raise
        finally:
            if staging is not None:
                staging.close()
            self._sharing.end()

    def _run(self, staging: Staging) -> Manifest:
        key, uri = self._request.key, self._request.uri
        published = self._store.finish_interrupted(key)
        published = self._store.finish_view(key) or published
        if published is not None and self._request.accepts(published.hash):
            # An earlier attempt has published the model, and pods may read it already.
            return published
        refusals = self._refusals
        adopts = self._store.is_foreign(key)
        if adopts and refusals is None:
            raise foreign(self._store.path(key))
        source = self._sources.of(uri, self._request.requester.namespace)
        credentials = self._credentials()

        def resolve(version: str | None) -> RemoteModel:
            size = listing_bytes(self._request.requester.namespace)
            with waiting(LISTING_SECONDS, self._cancelled.is_set, size=size):
                remote = source.resolve(uri, credentials, version)
            if self._origin not in {None, remote.origin}:
                raise from_elsewhere(public_uri(uri), remote.origin)
            return remote

        if adopts and refusals is not None:
            return self._adopt(staging, resolve(None), refusals)
        mended = self._repair(staging, resolve)
        if mended is not None:
            return mended
        return self._bring(staging, resolve)

    def _bring(self, staging: Staging, resolve: Callable[[str | None], RemoteModel]) -> Manifest:
        """Download and publish the version that the source has; again if it changes meanwhile."""
        remote, other_tags = self._listed(staging, resolve), set[tuple[str, str]]()
        for changes in range(MAX_CHANGES + 1):
            try:
                return self._publish(staging, self._fetch(staging, remote), remote)
            except FileChangedError as change:
                if changes == MAX_CHANGES:
                    raise
                log.warning("File changed at its source", key=self._request.key, path=change.path)
                remote = self._sharing.with_digests(resolve(None))
                if _is_again(change, other_tags):
                    remote = InOneAnswer(remote)
        raise AssertionError

    def _listed(
        self, staging: Staging, resolve: Callable[[str | None], RemoteModel]
    ) -> RemoteModel:
        """The listing of the source, with what is known from peers."""
        try:
            remote = resolve(staging.version(self._request.uri))
        except DownloadError as failure:
            return self._sharing.remembered(failure)
        return self._sharing.with_digests(remote)

    def _repair(
        self, staging: Staging, resolve: Callable[[str | None], RemoteModel]
    ) -> Manifest | None:
        """Repair a damaged copy in its place; None if there is none, or if that is not possible."""
        copy = self._store.inspect(self._request.key)
        if copy.is_unreadable:
            # The copy may be whole, and a pod may mount it: it must not be replaced on a guess.
            what = "the copy on the disk cannot be read"
            problem = what if self._request.requester.namespace else copy.problem
            raise DownloadError(FailureKind.INTERNAL, f"{problem}; check the node's disk")
        if copy.found is not Found.DAMAGED:
            return None
        if not self._stays(copy):
            # Moved out of models/, so that no pod starts with a damaged copy.
            self._store.salvage(self._request.key, copy, self._cancelled.is_set)
            return None
        mended = self._mend(staging, copy, resolve(None))
        if mended is None and self._in_use:
            raise self._cannot_mend(copy)
        return mended

    def _adopt(self, staging: Staging, remote: RemoteModel, refusals: Refusals) -> Manifest:
        """Adopt a foreign folder if it is the model, and fetch the files that it lacks."""
        check_tree(remote.files, self._request.uri)
        self._check_access(remote)
        total = total_size(remote.files)

        def fetch(files: Sequence[RemoteFile], beside: int) -> list[ManifestFile]:
            self._beside = beside
            part = (
                remote if len(files) == len(remote.files) else PartialListing(tuple(files), remote)
            )
            found = self._contents(staging, self._fetch(staging, part, Coming.REST), part)
            staging.sync()
            staging.close()
            return found

        manifest, self.adopted = Adopting(
            self._request,
            remote,
            store=self._store,
            refusals=refusals,
            fetch=fetch,
            cancelled=self._cancelled,
            report=lambda done: self._report(Progress(done, total, comparing=True)),
        ).run()
        return manifest

    def _stays(self, copy: OnDisk) -> bool:
        """Whether a damaged copy must be repaired in models/, and not in staging.

        Pods mount it, or it was adopted with files that are not the model's.
        """
        manifest = copy.manifest
        tree = self._store.path(self._request.key)
        return self._in_use or (manifest is not None and has_others(tree, manifest))

    def _mend(self, staging: Staging, copy: OnDisk, remote: RemoteModel) -> Manifest | None:
        """Replace only the bad files of a copy; None if its source has other files by now."""
        key, manifest = self._request.key, copy.manifest
        if manifest is None or not self._request.accepts(manifest.hash):
            return None
        if manifest.access is not None and manifest.access.origin != remote.origin:
            return None
        bad = {f.path: f for f in bad_files(self._store.path(key), manifest, copy.scrub)}
        files = tuple(file for file in remote.files if is_listed(file, bad))
        if len(files) != len(bad):
            return None
        if self._request.requester not in Granted(manifest.access):
            self._check_access(remote)
        fetched = self._fetch(staging, PartialListing(files, remote), Coming.REPAIR)
        if any(bad[file.path].sha256 not in {None, file.sha256} for file in fetched):
            self._store.discard(key)
            return None
        if self._cancelled.is_set():
            raise CancelledError
        staging.sync()
        staging.close()
        self._store.mend(manifest, bad)
        return manifest

    def _check_access(self, remote: RemoteModel) -> None:
        """Raise DownloadError if a namespace's own credentials may not read the files.

        Called before the namespace gets files that another requester's credentials have fetched.
        """
        if self._request.requester.namespace:
            with waiting(LISTING_SECONDS, self._cancelled.is_set):
                check_readable(remote)

    def _cannot_mend(self, copy: OnDisk) -> DownloadError:
        is_mine = self._request.requester in Granted(copy.access)
        problem = f" ({copy.problem})" if is_mine else ""
        return DownloadError(
            FailureKind.CORRUPT,
            f"the copy on the disk is damaged{problem}, and its source no longer has the "
            "same files: end the pods that mount it, and the model is downloaded anew",
        )

    def _fetch(
        self, staging: Staging, remote: RemoteModel, coming: Coming = Coming.MODEL
    ) -> tuple[Fetched, ...]:
        """Fetch all files of a listing to staging."""
        uri = self._request.uri
        check_tree(remote.files, uri)
        self._check_capacity(remote.files)
        mine = grant_for(self._request.requester)
        if staging.is_anothers(uri, remote.origin, mine):
            self._check_access(remote)
        for path in staging.begin(uri, remote.version, remote.files, remote.origin, mine):
            log.warning("File changed and starts over", uri=public_uri(uri), path=path)
        self._total = total_size(remote.files)
        # Before `_check_space`: a model that does not fit beside other models waits, and does not
        # fail.
        self._room, self._coming = self._disk_bytes(remote), coming
        self._reserve(self._room, coming)
        if self._total is not None:
            self._total += self._beside
        self._check_space(staging, remote.files)
        exchange = self._sharing.exchange if self._is_shared(remote, coming) else None
        if exchange is not None:
            # A listing may be allowed where a read is not, and peers give what the origin would.
            self._check_access(remote)
        return self._engine.fetch(
            remote,
            staging,
            priority=self._request.priority,
            is_urgent=self._is_urgent,
            owner=self._request.requester.namespace,
            cancelled=self._cancelled,
            # An expected hash needs all digests before the publication.
            later=coming is Coming.MODEL and not self._request.expected and not is_archive(remote),
            report=self._tell,
            received=self._came,
            exchange=exchange,
            received_from_peers=self._came_from_peers,
        )

    @staticmethod
    def _is_shared(remote: RemoteModel, coming: Coming) -> bool:
        """Whether peers are asked: for a model that is kept as its source lists it."""
        is_known = any(file.sha256 is not None for file in remote.files)
        return coming is Coming.MODEL and is_known and not is_archive(remote)

    def _came(self, size: int) -> None:
        self._sharing.from_origin += size
        self._received(size)

    def _came_from_peers(self, size: int) -> None:
        self._sharing.from_peers += size
        self._received_from_peers(size)

    def _contents(
        self, staging: Staging, fetched: Sequence[Fetched], remote: RemoteModel
    ) -> list[ManifestFile]:
        """The files in staging; an archive is unpacked first."""
        checksums = {
            file.path: str(file.checksum) for file in remote.files if file.checksum is not None
        }
        if is_archive(remote):
            archive = in_blocks(fetched[0].size)
            try:
                return unpack_model(
                    staging,
                    fetched[0].path,
                    self._request.uri,
                    free=self._store.disk().available,
                    reserve=lambda taken: self._need(archive + taken),
                    cancelled=self._cancelled,
                )
            except NoRoomError:
                # The model waits for room; the members that were unpacked are of no use.
                staging.close()
                self._store.discard(self._request.key)
                raise
        return [
            ManifestFile(
                path=file.path,
                size=file.size,
                sha256=file.sha256,
                version=file.version,
                checksum=checksums.get(file.path),
            )
            for file in fetched
        ]

    def _publish(
        self, staging: Staging, fetched: Sequence[Fetched], remote: RemoteModel
    ) -> Manifest:
        manifest = replace(
            make_manifest(
                self._request.uri,
                self._contents(staging, fetched, remote),
                self._request.caches,
                first_access(remote, self._request.requester),
            ),
            origin_bytes=self._sharing.from_origin,
            peer_bytes=self._sharing.from_peers,
            origin_asked=self._sharing.origin_asked,
            by_manifest=self._sharing.by_manifest,
        )
        if not self._request.accepts(manifest.hash):
            expected = " and ".join(sorted(self._request.expected))
            raise DownloadError(
                FailureKind.CORRUPT,
                f"{public_uri(self._request.uri)} has the hash {manifest.hash}, and the cache "
                f"expects {expected}: check spec.hash, and whether the model was changed",
            )
        if self._cancelled.is_set():
            raise CancelledError
        staging.sync()
        staging.close()
        self._store.publish(manifest)
        return manifest

    def _check_capacity(self, files: Sequence[RemoteFile]) -> None:
        """Raise DownloadError if the listed sizes exceed the disk: staging would allocate them."""
        size, disk = sum(file.size or 0 for file in files), self._store.disk()
        if size > disk.capacity:
            raise self._no_space(size, disk.available)

    def _check_space(self, staging: Staging, files: Sequence[RemoteFile]) -> None:
        missing = sum(file.size or 0 for file in files) - staging.done()
        available = self._store.disk().available
        # What is allocated already takes a call of the system for each file: only where it counts.
        if missing > available and missing > available + staging.allocated():
            raise self._no_space(missing, available)

    def _disk_bytes(self, remote: RemoteModel) -> int:
        """The bytes of the disk that the files take."""
        needed = sum(in_blocks(file.size or 0) for file in remote.files)
        # Of an archive's content, and of a file whose size the source does not list, only the
        # cache's declaration says the size.
        told = total_size(remote.files) is not None and not is_archive(remote)
        return needed if told else max(needed, in_blocks(self._request.size))

    def _need(self, size: int) -> None:
        """Reserve at least so many bytes."""
        if size > self._room:
            self._room = size
            self._reserve(size, self._coming)

    def _tell(self, done: int) -> None:
        if self._total is None and done > self._room:
            # The source has not listed the size: reserve ahead of what is received.
            self._need(2 * done)
        self._done = done + self._beside
        self._report(Progress(self._done, self._total))

    def _after(self, failure: DownloadError) -> None:
        if failure.kind in _STARTS_OVER or _is_unexpected(failure, self._request):
            with suppress(OSError):
                self._store.discard(self._request.key)

    def _no_space(self, needed: int, available: int) -> DownloadError:
        return DownloadError(
            FailureKind.NO_SPACE,
            f"{public_uri(self._request.uri)} needs {format_quantity(needed)}, and "
            f"{self._store.root} has {format_quantity(available)} left: make space on the node, or "
            "take a model from it",
        )

    def _disk_failure(self, error: OSError) -> DownloadError:
        if error.errno in FULL:
            return self._no_space(max(self._done, self._total or 0), self._store.disk().available)
        failure = disk_failure(error, self._store.root)
        if failure is not None:
            return failure
        place = error.filename or self._store.root
        return DownloadError(
            FailureKind.INTERNAL, f"{place}: {error.strerror}; check the node's disk"
        )


def _is_unexpected(failure: DownloadError, request: Request) -> bool:
    """Whether the complete model does not have the expected hash."""
    return failure.kind is FailureKind.CORRUPT and bool(request.expected)


def _is_again(change: FileChangedError, seen: set[tuple[str, str]]) -> bool:
    """Whether a file with this modification time has changed its ETag before (in `seen`).

    Then the content has not changed: servers behind one address have different ETags.
    """
    modified = getattr(change.failure, "modified", None)
    if modified is None:
        return False
    again = (change.path, modified) in seen
    seen.add((change.path, modified))
    return again
