"""Adopts a folder that another program filled, such as KServe's agent, if it matches its source.

The contents of its files are not changed. Files that it lacks are added, modes that keep model
servers from reading it are opened, and then its manifest is written. After a crash before that, the
folder is still a foreign one.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING

from agent.disk.digests import is_cheap
from agent.disk.verify import Expected, Fault, Verifier
from agent.jobs.adoption.compare import (
    first_difference,
    missing,
    other_content,
    says_too_little,
    still_written,
)
from agent.jobs.adoption.foreign import instead_of_folder, look, signature
from agent.sources.waits import CALL_SECONDS, waiting
from agent.structs.adoption import Adopted, closed, foreign
from agent.structs.failures import CancelledError, DownloadError, FailureKind
from agent.structs.grants import first_access
from agent.structs.manifest import ManifestFile, make_manifest
from agent.structs.remote import Checksum, ChecksumAlgorithm, RemoteFile, proof_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from agent.disk.store import Store
    from agent.jobs.adoption.compare import Seen
    from agent.structs.manifest import Manifest
    from agent.structs.remote import RemoteModel
    from agent.structs.requests import Request


class Refusals:
    """Why folders were not adopted, so that an unchanged folder is not read again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # At most one for each key that is wanted: its folder's state in a few bytes, and a failure.
        self._known: dict[str, tuple[bytes, DownloadError]] = {}

    def of(self, key: str, state: bytes) -> DownloadError | None:
        """Why the folder of a key is not adopted in this state; None if not known."""
        with self._lock:
            known = self._known.get(key)
        return known[1] if known is not None and known[0] == state else None

    def note(self, key: str, state: bytes, failure: DownloadError) -> None:
        """Remember why the folder of a key in this state was not adopted."""
        with self._lock:
            self._known[key] = (state, failure.without_traceback())

    def retain(self, keys: Collection[str]) -> None:
        """Forget all other keys."""
        with self._lock:
            self._known = {key: known for key, known in self._known.items() if key in keys}

    def forget(self, key: str) -> None:
        """Forget a key, whose folder was adopted."""
        with self._lock:
            self._known.pop(key, None)


class Adopting:
    """One attempt to adopt the folder of one model.

    `fetch` downloads files of the model to staging, verified and unpacked, and returns them; its
    second argument is the size of the files that the folder has already. `report` is called with
    the bytes that were compared.
    """

    def __init__(
        self,
        request: Request,
        remote: RemoteModel,
        *,
        store: Store,
        refusals: Refusals,
        fetch: Callable[[Sequence[RemoteFile], int], list[ManifestFile]],
        cancelled: threading.Event,
        report: Callable[[int], None],
    ) -> None:
        self._request = request
        self._remote = remote
        self._store = store
        self._tree = store.path(request.key)
        self._refusals = refusals
        self._fetch = fetch
        self._cancelled = cancelled
        self._report = report

    def run(self) -> tuple[Manifest, Adopted]:
        """The manifest of the adopted model.

        Raises DownloadError (ForeignDirectory) if the folder is another one, CancelledError,
        OSError, and what `fetch` raises.
        """
        instead = instead_of_folder(self._tree)
        if instead:
            raise foreign(self._tree, instead)
        key = self._request.key
        state = self._state()
        known = self._refusals.of(key, state)
        if known is not None:
            raise known.without_traceback()
        try:
            found = self._run_permitted()
        except DownloadError as failure:
            if failure.kind is FailureKind.FOREIGN_DIRECTORY:
                self._refusals.note(key, state, failure)
                if says_too_little(self._remote.files):
                    # The files that were fetched for the comparison are of no more use.
                    self._store.discard(key)
            raise
        self._refusals.forget(key)
        return found

    def _state(self) -> bytes:
        """A digest of the state of the folder, the listing, and the expected hashes."""
        folder, expected = sorted(signature(self._tree)), sorted(self._request.expected)
        described = repr((folder, self._remote.files, expected))
        return hashlib.sha256(described.encode(errors="surrogateescape")).digest()

    def _run_permitted(self) -> tuple[Manifest, Adopted]:
        try:
            with os.scandir(self._tree):
                # Fails before anything is fetched if the folder cannot be read.
                pass
            return self._run()
        except PermissionError as error:
            place = os.path.relpath(error.filename or self._tree, self._tree)
            problem = f"may not be read by the agent ({error.strerror})"
            raise foreign(self._tree, closed(place, problem, self._tree)) from None

    def _run(self) -> tuple[Manifest, Adopted]:
        listed = self._remote.files
        # A tenant's own server can list sizes and checksums of files that it does not have.
        unproved = self._request.requester.chooses_server
        content = self._fetch(listed, 0) if unproved or says_too_little(listed) else None
        files = listed if content is None else [_listing_of(file) for file in content]
        seen = look(self._tree, [file.path for file in files])
        difference = first_difference(files, seen)
        if difference:
            raise foreign(self._tree, difference)
        there = self._compare(files, seen)
        here = sum(file.size for file in there)
        lacking = missing(files, seen)
        paths = [file.path for file in lacking]
        if content is not None:
            there = content
        elif lacking:
            there += self._fetch(lacking, here)
        manifest = self._manifest(there)
        self._store.adopt(manifest, paths)
        return manifest, Adopted(here, manifest.size - here)

    def _compare(
        self, files: Sequence[RemoteFile], seen: Mapping[str, Seen | None]
    ) -> list[ManifestFile]:
        """The files that the folder has, if each matches its store's checksum."""
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            self._report(done)

        count(0)
        verifier = Verifier(self._tree, self._cancelled.is_set, report=count)
        return [
            self._verify(file, verifier, count) for file in files if seen[file.path] is not None
        ]

    def _verify(
        self, file: RemoteFile, verifier: Verifier, count: Callable[[int], None]
    ) -> ManifestFile:
        if self._cancelled.is_set():
            raise CancelledError
        size, sha256 = file.size or 0, None
        with waiting(CALL_SECONDS, self._cancelled.is_set):
            proof = proof_of(self._remote, file)
        ours = bool(self._request.expected)
        if proof is None and not ours:
            # Only its size can be compared. The digest is computed later.
            count(size)
        else:
            expected = Expected(file.path, file.size, proof)
            verdict = verifier.verify(expected, ours=ours or not is_cheap(proof))
            if verdict.changed or verdict.fault not in {None, Fault.CHECKSUM}:
                raise foreign(self._tree, still_written(file.path))
            if proof is not None and verdict.fault is Fault.CHECKSUM:
                raise foreign(self._tree, other_content(file.path, proof))
            sha256 = verdict.sha256
        return ManifestFile(
            path=file.path,
            size=size,
            sha256=sha256,
            version=file.version,
            checksum=str(file.checksum) if file.checksum else None,
        )

    def _manifest(self, files: Sequence[ManifestFile]) -> Manifest:
        manifest = make_manifest(
            self._request.uri,
            files,
            self._request.caches,
            first_access(self._remote, self._request.requester),
        )
        if not self._request.accepts(manifest.hash):
            expected = " and ".join(sorted(self._request.expected))
            raise foreign(
                self._tree,
                f"it has the hash {manifest.hash}, and the cache expects {expected} (check "
                "spec.hash)",
            )
        if self._cancelled.is_set():
            raise CancelledError
        return manifest


def _listing_of(file: ManifestFile) -> RemoteFile:
    """A fetched file as a listing with size and checksum."""
    assert file.sha256 is not None  # noqa: S101
    checksum = Checksum(ChecksumAlgorithm.SHA256, file.sha256)
    return RemoteFile(file.path, file.path, file.size, file.version, checksum)
