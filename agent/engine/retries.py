"""When a range that failed is asked for again. Pure."""

from __future__ import annotations

from localmodel.agent.structs.failures import DownloadError, FailureKind

# Requests for the same byte, by what keeps failing; None: that is the model's failure at once.
_ATTEMPTS = {
    FailureKind.UNREACHABLE: 5,
    FailureKind.CORRUPT: 3,
    FailureKind.THROTTLED: 8,
}
_BASE_SECONDS = {FailureKind.THROTTLED: 1.0}
_DEFAULT_BASE_SECONDS = 0.2
MAX_DELAY_SECONDS = 20.0
# The same, where it may be one more connection than the origin allows.
_REFUSALS = {FailureKind.DENIED: 4, FailureKind.UNREACHABLE: 5}
_DEFAULT_REFUSALS = 8
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


def is_limit(
    error: DownloadError, attempts: int, *, others: int, coming: int, has_come: bool
) -> bool:
    """Whether a request that brought nothing may have failed because there are others beside it.

    It is not the first byte's: `others` requests of the same model are under way, of which
    `coming` have brought bytes, or some have come before. Where nothing else comes, it is what it
    says.
    """
    if error.kind is FailureKind.DENIED:
        return others > 0 or has_come
    if error.kind is FailureKind.UNREACHABLE:
        # Some say no by closing the connection; once may be chance.
        return coming > 0 and attempts > 0
    if error.kind is FailureKind.THROTTLED:
        # The others end long before.
        return others > 0 and (error.retry_after or 0.0) > MAX_DELAY_SECONDS
    return False


def refused_delay(kind: FailureKind, attempts: int, jitter: float) -> float | None:
    """As retry_delay, for what `is_limit`: until the others leave room, whatever is asked for."""
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
