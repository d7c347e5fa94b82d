"""When a range that failed is asked for again. Pure."""

from __future__ import annotations

from agent.failures import DownloadError, FailureKind

# Requests for the same byte, by what keeps failing; None: that is the model's failure at once.
_ATTEMPTS = {
    FailureKind.UNREACHABLE: 5,
    FailureKind.CORRUPT: 3,
    FailureKind.THROTTLED: 8,
}
_BASE_SECONDS = {FailureKind.THROTTLED: 1.0}
_DEFAULT_BASE_SECONDS = 0.2
MAX_DELAY_SECONDS = 20.0
# What a request must have brought to count as a success, so that its next failure is a first one.
PROGRESS_BYTES = 64 << 10


def retry_delay(error: DownloadError, attempts: int, jitter: float) -> float | None:
    """Seconds to wait after so many failed attempts (from 1), or None to give up.

    It doubles; `jitter`, from 0 to 1, adds up to a half. What the origin asks for is kept, unless
    that is so long that the model's own backoff should wait and not a connection.
    """
    if getattr(error, "is_mended", False):
        return 0.0
    if attempts >= _ATTEMPTS.get(error.kind, 0):
        return None
    base = _BASE_SECONDS.get(error.kind, _DEFAULT_BASE_SECONDS)
    delay = min(base * 2.0 ** (attempts - 1) * (1 + 0.5 * jitter), MAX_DELAY_SECONDS)
    if error.retry_after is not None:
        if error.retry_after > MAX_DELAY_SECONDS:
            return None
        delay = max(delay, error.retry_after)
    return delay
