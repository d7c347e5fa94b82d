"""Downloads that failed, and when each is due again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from agent.failures import DISK_KINDS, backoff
from agent.status import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.failures import DownloadError
    from agent.options import Options
    from agent.wanted import Request

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Retry:
    """The last failure of a request, and when it is due again (monotonic)."""

    request: Request
    failure: Failure
    at: float


class Retries:
    """The failures of what is wanted, by key."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._retries: dict[str, _Retry] = {}

    @property
    def due(self) -> dict[str, float]:
        """When each is due (monotonic seconds)."""
        return {key: retry.at for key, retry in self._retries.items()}

    def failure(self, key: str) -> Failure | None:
        """The last failure of a key, if it failed last."""
        retry = self._retries.get(key)
        return retry.failure if retry else None

    def keep(self, requests: Mapping[str, Request]) -> None:
        """Forget failures of what is not asked for, or asked for otherwise: that is another try."""
        self._retries = {
            key: retry
            for key, retry in self._retries.items()
            if key in requests and requests[key].asks_as(retry.request)
        }

    def disk_is_back(self) -> None:
        """Forget what failed because of the disk: it is tried again at once."""
        self._retries = {
            key: retry
            for key, retry in self._retries.items()
            if retry.failure.error.kind not in DISK_KINDS
        }

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        self._retries.pop(key, None)

    def failed(self, request: Request, error: DownloadError) -> None:
        """Note a failure. What the origin asks to wait is waited."""
        before = self._retries.get(request.key)
        attempts = before.failure.attempts + 1 if before else 1
        delay = max(backoff(error.kind, attempts, self._options.jitter()), error.retry_after or 0.0)
        self._retries[request.key] = _Retry(
            request,
            Failure(error, attempts, self._options.later(delay)),
            self._options.monotonic() + delay,
        )
        log.warning(
            "Download failed",
            key=request.key,
            reason=error.kind.value,
            detail=error.message,
            attempts=attempts,
            retrySeconds=round(delay, 1),
        )
