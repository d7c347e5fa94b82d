"""One download, from the listing to the published model."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from agent.archive.model import archive_of, unpack_model
from agent.capacity import in_blocks
from agent.disk_watch import disk_failure
from agent.engine.engine import CancelledError
from agent.engine.job import FileChangedError
from agent.failures import DownloadError, FailureKind, public_uri
from agent.manifest import Manifest, ManifestFile, check_path, folders, make_manifest
from agent.on_disk import Found
from agent.repair import bad_files
from crds.quantity import format_quantity

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from agent.credentials import Credentials
    from agent.engine.engine import Engine, Fetched
    from agent.on_disk import OnDisk
    from agent.sources import Sources
    from agent.sources.base import RemoteFile, RemoteModel
    from agent.staging import Staging
    from agent.store import Store
    from agent.wanted import Request

# How often a source may change in the middle of one download before it counts as a failure.
MAX_CHANGES = 3

_FULL = {errno.ENOSPC, errno.EDQUOT}
# What is partly here is of no use after these, and its space is needed.
_STARTS_OVER = {FailureKind.NO_SPACE, FailureKind.UNSUPPORTED}

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Progress:
    """Bytes that are here, and bytes of the model; None while the source has not told them."""

    done: int
    total: int | None


class Download:
    """One attempt to get a model. What it leaves in staging, the next attempt goes on with."""

    def __init__(
        self,
        request: Request,
        *,
        sources: Sources,
        store: Store,
        engine: Engine,
        credentials: Callable[[], Credentials | None],
        cancelled: threading.Event,
        in_use: bool = False,
        report: Callable[[Progress], None],
        reserve: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._request = request
        self._sources = sources
        self._store = store
        self._engine = engine
        self._credentials = credentials
        self._cancelled = cancelled
        self._in_use = in_use
        self._report = report
        self._reserve = reserve
        self._done = 0
        self._total: int | None = None

    def run(self) -> Manifest:
        """The manifest of the published model.

        Raises CancelledError, DownloadError with what is wrong, or what `reserve` raises: it gets
        the size of the model on the disk once the source has told it, before the first byte.
        """
        staging = self._store.staging(self._request.key)
        try:
            return self._run(staging)
        except OSError as error:
            failure = self._disk_failure(error)
            self._after(failure)
            raise failure from error
        except DownloadError as failure:
            self._after(failure)
            raise
        finally:
            staging.close()

    def _run(self, staging: Staging) -> Manifest:
        key, uri = self._request.key, self._request.uri
        adopted = self._store.check_target(key)
        if adopted is not None and self._request.accepts(adopted.hash):
            # Pods may read it already: it is not fetched again to take its own place.
            return adopted
        source = self._sources.of(uri)
        credentials = self._credentials()
        copy = self._store.inspect(key)
        if copy.found is Found.DAMAGED and self._in_use:
            return self._mend(staging, copy, source.resolve(uri, credentials, None))
        if copy.found is Found.DAMAGED:
            # No pod should begin to read it.
            self._store.salvage(key, self._cancelled.is_set)
        remote = source.resolve(uri, credentials, staging.version(uri))
        for changes in range(MAX_CHANGES + 1):
            try:
                return self._publish(staging, self._fetch(staging, remote), remote)
            except FileChangedError as change:
                if changes == MAX_CHANGES:
                    raise change.failure from None
                log.warning("File changed at its source", key=key, path=change.path)
                remote = source.resolve(uri, credentials, None)
        raise AssertionError

    def _mend(self, staging: Staging, copy: OnDisk, remote: RemoteModel) -> Manifest:
        """Replace the bad files of a copy that pods mount, and only those."""
        key, manifest = self._request.key, copy.manifest
        bad = {file.path: file for file in bad_files(self._store.path(key), copy)}
        files = tuple(file for file in remote.files if _is_listed(file, bad))
        if manifest is None or len(files) != len(bad) or not self._request.accepts(manifest.hash):
            raise self._cannot_mend(copy)
        fetched = self._fetch(staging, _Part(files, remote), whole=False)
        if any(bad[file.path].sha256 not in {None, file.sha256} for file in fetched):
            self._store.discard(key)
            raise self._cannot_mend(copy)
        if self._cancelled.is_set():
            raise CancelledError
        staging.sync()
        staging.close()
        self._store.mend(manifest, bad)
        return manifest

    def _cannot_mend(self, copy: OnDisk) -> DownloadError:
        return DownloadError(
            FailureKind.CORRUPT,
            f"the copy on the disk is damaged ({copy.problem}), and its source no longer has the "
            "same files: end the pods that mount it, and the model is downloaded anew",
        )

    def _fetch(
        self, staging: Staging, remote: RemoteModel, *, whole: bool = True
    ) -> tuple[Fetched, ...]:
        """All files of a listing, complete in staging. `whole`: they become a new copy."""
        uri = self._request.uri
        check_tree(remote.files, uri)
        for path in staging.begin(uri, remote.version, remote.files):
            log.warning("File changed and starts over", uri=public_uri(uri), path=path)
        self._check_space(staging, remote.files)
        if self._total is not None:
            self._reserve(self._disk_bytes(remote.files))
        return self._engine.fetch(
            remote,
            staging,
            priority=self._request.priority,
            cancelled=self._cancelled,
            # An expected hash is compared before the publication.
            later=whole and not self._request.expected and archive_of(remote.files) is None,
            report=self._tell,
        )

    def _publish(
        self, staging: Staging, fetched: Sequence[Fetched], remote: RemoteModel
    ) -> Manifest:
        checksums = {
            file.path: str(file.checksum) for file in remote.files if file.checksum is not None
        }
        files = [
            ManifestFile(
                path=file.path,
                size=file.size,
                sha256=file.sha256,
                version=file.version,
                checksum=checksums.get(file.path),
            )
            for file in fetched
        ]
        if archive_of(remote.files) is not None:
            files = unpack_model(
                staging,
                files[0].path,
                self._request.uri,
                free=self._store.disk().available,
                cancelled=self._cancelled,
            )
        manifest = make_manifest(self._request.uri, files, self._request.caches)
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

    def _check_space(self, staging: Staging, files: Sequence[RemoteFile]) -> None:
        sizes = [file.size for file in files]
        self._total = None if None in sizes else sum(size or 0 for size in sizes)
        here = sum(file.blocks.done for file in staging.staged.values())
        missing = sum(size or 0 for size in sizes) - here
        available = self._store.disk().available
        if missing > available + staging.allocated():
            raise self._no_space(missing, available)

    def _disk_bytes(self, files: Sequence[RemoteFile]) -> int:
        """What the model takes of the disk."""
        needed = sum(in_blocks(file.size or 0) for file in files)
        # Only what is declared says how much comes out of an archive.
        return max(needed, self._request.size) if archive_of(files) is not None else needed

    def _tell(self, done: int) -> None:
        self._done = done
        self._report(Progress(done, self._total))

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
        if error.errno in _FULL:
            return self._no_space(max(self._done, self._total or 0), self._store.disk().available)
        failure = disk_failure(error, self._store.root)
        if failure is not None:
            return failure
        place = error.filename or self._store.root
        return DownloadError(
            FailureKind.INTERNAL, f"{place}: {error.strerror}; check the node's disk"
        )


class _Part:
    """Some files of a listing."""

    def __init__(self, files: tuple[RemoteFile, ...], whole: RemoteModel) -> None:
        self.files = files
        self.origin, self.version = whole.origin, whole.version
        self.read = whole.read


def _is_listed(file: RemoteFile, former: Mapping[str, ManifestFile]) -> bool:
    """Whether it is one of these, and the same one still."""
    before = former.get(file.path)
    return before is not None and (file.size, file.version) == (before.size, before.version)


def _is_unexpected(failure: DownloadError, request: Request) -> bool:
    """Whether the whole model was here and is not the expected one."""
    return failure.kind is FailureKind.CORRUPT and bool(request.expected)


def check_tree(files: Sequence[RemoteFile], uri: str) -> None:
    """Raises DownloadError (Unsupported) if the files cannot lie in one folder as they are named.

    An object store may have both `a` and `a/b`, or `../a`.
    """
    for file in files:
        try:
            check_path(file.path)
        except ValueError as error:
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"{public_uri(uri)} cannot be stored: {error}; rename it at the source",
            ) from None
    paths = {file.path for file in files}
    twice = sorted(paths & folders(paths))
    if twice or len(paths) != len(files):
        name = twice[0] if twice else "a path"
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{public_uri(uri)} cannot be stored: it has {name!r} twice, as a file and as a folder "
            "or as two files; rename one at the source",
        )
