"""What becomes of a range whose request failed. Called with the schedule's lock held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from localmodel.agent.disk.blocks import Gap
from localmodel.agent.engine.job import FileChangedError
from localmodel.agent.engine.retries import is_limit, refused_delay, retry_delay, with_advice
from localmodel.agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from localmodel.agent.engine.job import Segment
    from localmodel.agent.engine.origins import Origin

# How long nobody opens one connection more than an origin allows.
REFUSED_PAUSE_SECONDS = 1.0

log = structlog.get_logger(__name__)


def set_back(
    segment: Segment, error: BaseException, origin: Origin, now: float, jitter: float
) -> BaseException | None:
    """Have what is left of a segment fetched again; or the failure of its model.

    `now` is monotonic seconds, `jitter` from 0 to 1.
    """
    file = segment.file
    is_superseded = segment.aborted and not segment.stalled and not segment.gave_way
    if segment.twin in file.active or is_superseded:
        # The other request goes on, or has brought the rest already.
        return None
    if segment.gave_way:
        _put_back(segment, segment.attempts, now)
        return None
    if not isinstance(error, DownloadError):
        return error
    if error.kind is FailureKind.CHANGED:
        return FileChangedError(file.remote.path, error)
    attempts, coming = segment.failed_attempts(), 0
    pause: float | None
    if _crowds(segment, error, origin):
        # Go on with fewer connections, as long as the file comes.
        if file.done > segment.file_done:
            attempts = 1
        elif file.active:
            # Whether the file comes is not known before those have ended.
            attempts = max(1, segment.attempts)
        delay = refused_delay(error.kind, attempts, jitter)
        pause = min(delay or 0.0, REFUSED_PAUSE_SECONDS)
        coming = sum(other.position > other.begun for other in origin.active)
        error = with_advice(error) if file.done else error
    else:
        delay = retry_delay(error, attempts, jitter)
        pause = delay if error.kind is FailureKind.THROTTLED else None
    if delay is None:
        return error
    log.debug("Range failed", path=file.remote.path, reason=error.kind.value, delay=delay)
    if pause is not None:
        origin.limit.refused(now, coming)
        origin.pause(now + pause)
    file.heed(error)
    _put_back(segment, attempts, now + delay)
    return None


def _crowds(segment: Segment, error: DownloadError, origin: Origin) -> bool:
    """Whether a request may have failed because other requests of its model are under way."""
    job = segment.file.job
    others = [other for other in origin.active if other.file.job is job]
    return segment.position == segment.begun and is_limit(
        error,
        segment.attempts,
        others=len(others),
        coming=sum(other.position > other.begun for other in others),
        has_come=job.received > 0,
    )


def _put_back(segment: Segment, attempts: int, not_before: float) -> None:
    """Have what is left of a segment fetched later."""
    file, job = segment.file, segment.file.job
    if not file.remote.ranges:
        file.restart(attempts, not_before)
        job.enqueue(file)
    else:
        assert segment.end is not None  # noqa: S101
        job.give_back(file, Gap(segment.position, segment.end, attempts, not_before))
