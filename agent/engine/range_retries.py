"""When a range that failed is requested again, after a 429 or 503 for example. Pure."""

from __future__ import annotations

from agent.structs.failures import DownloadError, FailureKind

# How many requests for the same byte may fail before the model fails, by the kind of failure. A
# kind that is not listed fails the model at once.
_ATTEMPTS = {
    FailureKind.UNREACHABLE: 5,
    FailureKind.CORRUPT: 3,
    FailureKind.THROTTLED: 8,
}
_BASE_SECONDS = {FailureKind.THROTTLED: 1.0}
_DEFAULT_BASE_SECONDS = 0.2
MAX_DELAY_SECONDS = 20.0
# The same for a request that may have failed because the origin allows no more connections.
_REFUSALS = {FailureKind.DENIED: 4, FailureKind.UNREACHABLE: 5}
_DEFAULT_REFUSALS = 8
# A request that brought at least this much before it failed starts a new series of attempts.
PROGRESS_BYTES = 64 << 10


def retry_delay(error: DownloadError, attempts: int, jitter: float) -> float | None:
    """Seconds to wait after so many failed attempts (from 1), or None to give up.

    The delay doubles with each attempt; `jitter`, from 0 to 1, adds up to a half. A longer delay
    that the origin asks for (Retry-After) is obeyed up to MAX_DELAY_SECONDS; past that, the model
    fails and is retried as a whole.
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


def is_limit(
    error: DownloadError, attempts: int, *, others: bool, coming: bool, has_come: bool
) -> bool:
    """Whether a request that brought no byte may have failed for too many connections.

    `others` is whether other requests of the model ran beside it, `coming` whether one of those has
    received bytes, or any has since the last failed attempt; `has_come` is whether any byte of the
    model was received. Where nothing else is received, the failure counts as what it says.
    """
    if error.kind is FailureKind.DENIED:
        return others or has_come
    if error.kind is FailureKind.UNREACHABLE:
        # Some origins refuse by closing the connection. The first time may be chance.
        return coming and attempts > 0
    if error.kind is FailureKind.THROTTLED:
        # The other requests end long before that delay.
        return others and (error.retry_after or 0.0) > MAX_DELAY_SECONDS
    return False


def refused_delay(kind: FailureKind, attempts: int, jitter: float) -> float | None:
    """Seconds to wait where `is_limit` holds, or None to give up. Retry-After is not obeyed."""
    if attempts >= _REFUSALS.get(kind, _DEFAULT_REFUSALS):
        return None
    base = _BASE_SECONDS.get(FailureKind.THROTTLED, _DEFAULT_BASE_SECONDS)
    return min(base * 2.0 ** (attempts - 1) * (1 + 0.5 * jitter), MAX_DELAY_SECONDS)


def with_advice(error: DownloadError) -> DownloadError:
    """The final refusal of a file of which some bytes came before, with what may be the cause."""
    if error.kind is not FailureKind.DENIED:
        return error
    return DownloadError(
        error.kind,
        f"{error.message}. It came until now: if the URL is signed, its time may be over, so have "
        "it signed for longer",
        retry_after=error.retry_after,
        hides=error.hides,
    )
