"""Failed attempts to download a model, and when the next attempt of each requester is due."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.structs.failures import (
    DISK_KINDS,
    MAX_BACKOFF_SECONDS,
    NODE_KINDS,
    DownloadError,
    FailureKind,
    backoff,
)
from agent.structs.grants import Granted, grant_for
from agent.structs.log import log
from agent.structs.records import FailedAttempt, FailedAttempts
from agent.structs.requests import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.disk.on_disk import OnDisk
    from agent.disk.store import Store
    from agent.structs.options import Options
    from agent.structs.requests import Request, Requester

# Failures that count for no requester any more once a requester has the model.
_PASSED = NODE_KINDS | {FailureKind.OTHER_VERSION}


@dataclass(frozen=True)
class Retry:
    """The last failed attempt, and when the next one is due (monotonic)."""

    attempt: Request
    failure: Failure
    at: float


NO_RETRIES: Mapping[Requester, Retry] = MappingProxyType({})


class Retries:
    """The failed attempts of what is wanted, by key and requester.

    Each requester has its own attempts: the credentials of one may fail where another's do not. A
    failure of the node itself counts for all requesters. `retain` bounds the failures by the
    requests.
    """

    def __init__(self, options: Options, store: Store) -> None:
        self._options = options
        self._store = store
        # Each mapping is replaced when it changes: a row that has it stays as it was.
        self._retries: dict[str, Mapping[Requester, Retry]] = {}
        self._is_restored = not options.remembers_failures

    def of(self, key: str) -> Mapping[Requester, Retry]:
        """The last failed attempt of each requester whose last attempt failed."""
        return self._retries.get(key, NO_RETRIES)

    def retain(self, requests: Mapping[str, Request]) -> None:
        """Forget all failures but those of these requests as they are now: others begin anew.

        The first call reads the failures that were noted before the agent started.
        """
        if not self._is_restored:
            self._restore(requests)
        self._forget(
            lambda key, retry: key not in requests or not requests[key].asks_as(retry.attempt)
        )

    def disk_is_back(self) -> None:
        """Forget the failures of the disk itself: those downloads are tried again at once."""
        self._forget(lambda _, retry: retry.failure.error.kind in DISK_KINDS)

    def published(self, copies: Mapping[str, OnDisk]) -> None:
        """Forget the failures that kept these whole copies from being published.

        An error of the disk may come after a publication; so may the end of the agent, whose next
        start completes it. Failures stay of requesters that may not have the copy, or that request
        another hash: the copy is not what their attempts were to bring.
        """

        def is_over(key: str, retry: Retry) -> bool:
            copy = copies.get(key)
            return (
                copy is not None
                and copy.manifest is not None
                and retry.failure.error.kind in _PASSED | {FailureKind.NO_SPACE}
                and retry.attempt.may_accept(copy.manifest.hash)
                and retry.attempt.requester in Granted(copy.access)
            )

        self._forget(is_over)

    def succeeded(self, attempt: Request) -> None:
        """Forget the failures of a requester, and all of the node itself or of a former copy."""
        failed = self._retries.pop(attempt.key, NO_RETRIES)
        left = {
            one: retry
            for one, retry in failed.items()
            if one != attempt.requester and retry.failure.error.kind not in _PASSED
        }
        if left:
            self._retries[attempt.key] = left
        if failed:
            self._note(attempt.key)

    def failed(
        self,
        request: Request,
        attempt: Request,
        error: DownloadError,
        event: str = "Download failed",
    ) -> None:
        """Note that an attempt for a request failed. The wait that an origin asks for is kept."""
        if error.kind in NODE_KINDS:
            for requester in request.requesters:
                self._failed(request.by(requester), error, event)
        else:
            self._failed(attempt, error, event)
        if error.kind not in DISK_KINDS:
            self._note(request.key)

    def _failed(self, attempt: Request, error: DownloadError, event: str) -> None:
        failed = self.of(attempt.key)
        before = failed.get(attempt.requester)
        attempts = before.failure.attempts + 1 if before else 1
        told = error.told_to(attempt.requester.namespace)
        delay = max(backoff(error.kind, attempts, self._options.jitter()), error.retry_after or 0.0)
        failure = Failure(told, attempts, self._options.later(delay))
        retry = Retry(attempt, failure, self._options.monotonic() + delay)
        self._retries[attempt.key] = {**failed, attempt.requester: retry}
        log.warning(
            event,
            key=attempt.key,
            namespace=attempt.requester.namespace or None,
            reason=error.kind.value,
            detail=error.message,
            attempts=attempts,
            retrySeconds=round(delay, 1),
        )

    def _forget(self, is_over: Callable[[str, Retry], bool]) -> None:
        for key, failed in list(self._retries.items()):
            left = {one: retry for one, retry in failed.items() if not is_over(key, retry)}
            if len(left) == len(failed):
                continue
            if left:
                self._retries[key] = left
            else:
                del self._retries[key]
            self._note(key)

    def _note(self, key: str) -> None:
        """Write the failures of a key to the disk, but for those of the disk itself."""
        if not self._options.remembers_failures:
            return
        failed = tuple(
            FailedAttempt(
                requester=grant_for(one),
                expected=tuple(sorted(retry.attempt.expected)),
                kind=retry.failure.error.kind,
                detail=retry.failure.error.message,
                attempts=retry.failure.attempts,
                retry_time=retry.failure.retry_time,
            )
            for one, retry in self.of(key).items()
            if retry.failure.error.kind not in DISK_KINDS
        )
        try:
            self._store.note_failed(key, FailedAttempts(attempts=failed) if failed else None)
        except OSError as error:
            log.warning("Could not note a failure", key=key, reason=str(error))

    def _restore(self, requests: Mapping[str, Request]) -> None:
        try:
            noted = self._store.failed()
        except OSError as error:
            log.warning("Could not read what has failed before", reason=str(error))
            return
        self._is_restored = True
        for key, note in noted.items():
            request = requests.get(key)
            before = {one.requester: one for one in note.attempts}
            for requester in request.requesters if request else ():
                found = before.get(grant_for(requester))
                if request and found and frozenset(found.expected) == request.expected:
                    retry = self._restored(request.by(requester), found)
                    self._retries[key] = {**self.of(key), requester: retry}
            if key not in self._retries:
                self._note(key)

    def _restored(self, attempt: Request, noted: FailedAttempt) -> Retry:
        """A noted failure. No wait is longer than the longest, however clocks were set."""
        left = (noted.retry_time - self._options.now()).total_seconds()
        delay = min(max(left, 0.0), MAX_BACKOFF_SECONDS)
        error = DownloadError(noted.kind, noted.detail)
        failure = Failure(error, noted.attempts, self._options.later(delay))
        return Retry(attempt, failure, self._options.monotonic() + delay)
