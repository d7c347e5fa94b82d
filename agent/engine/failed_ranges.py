"""Decides whether a segment that failed is fetched again. Called with the schedule's lock held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.disk.blocks import Gap
from agent.engine.job import FileChangedError
from agent.engine.range_retries import (
    MAX_DELAY_SECONDS,
    is_limit,
    refused_delay,
    retry_delay,
    with_advice,
)
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.log import log

if TYPE_CHECKING:
    from agent.engine.job import Segment
    from agent.engine.origins import Origin

# How long no connection is opened to an origin that refused one.
REFUSED_PAUSE_SECONDS = 1.0


def set_back(
    segment: Segment, error: BaseException, origin: Origin, now: float, jitter: float
) -> BaseException | None:
    """Schedule the rest of a failed segment, or return the failure of its model.

    `now` is monotonic seconds, `jitter` from 0 to 1.
    """
    file = segment.file
    if _is_superseded(segment):
        if isinstance(error, DownloadError) and not segment.aborted:
            # The other request goes on, and the origin has refused this one nevertheless.
            _next_attempt(segment, error, origin, now, jitter)
        return None
    if segment.is_preempted:
        _put_back(segment, segment.attempts, now)
        return None
    if not isinstance(error, DownloadError):
        return error
    if error.kind is FailureKind.CHANGED:
        return FileChangedError(file.remote.path, error)
    is_limit = _exceeds_limit(segment, error)
    attempts, delay = _next_attempt(segment, error, origin, now, jitter)
    if delay is None:
        final = with_advice(error) if is_limit and file.done else error
        return _without_origin(segment, final, now)
    log.debug("Range failed", path=file.remote.path, reason=error.kind.value, delay=delay)
    file.adapt_to(error)
    _put_back(segment, attempts, now + delay)
    return None


def _next_attempt(
    segment: Segment, error: DownloadError, origin: Origin, now: float, jitter: float
) -> tuple[int, float | None]:
    """The failed attempts so far, and the seconds until the next one; None: there is none.

    Where the origin has refused the request, none is sent for a while, and fewer afterwards.
    """
    file, attempts, receiving = segment.file, segment.failed_attempts(), 0
    pause: float | None
    if _exceeds_limit(segment, error):
        # Continue with fewer connections, as long as bytes of the file are received.
        if file.done > segment.file_done:
            attempts = 1
        elif file.active:
            # Other segments of the file may still receive bytes.
            attempts = max(1, segment.attempts)
        delay = refused_delay(error.kind, attempts, jitter)
        pause = min(delay or 0.0, REFUSED_PAUSE_SECONDS)
        receiving = sum(other.position > other.begun for other in origin.active)
    else:
        delay = retry_delay(error, attempts, jitter)
        pause = delay if error.kind is FailureKind.THROTTLED else None
    if delay is not None and pause is not None:
        origin.limit.refused(now, receiving)
        origin.pause(now + pause)
    return attempts, delay


def set_back_of_peer(segment: Segment, error: BaseException) -> BaseException | None:
    """Schedule the rest of a segment that a peer did not send, or return the failure of its model.

    It is no failed attempt of the file: another peer or the origin may have it.
    """
    if _is_superseded(segment):
        return None
    if not isinstance(error, DownloadError):
        return error
    log.debug("Peer failed", path=segment.file.remote.path, reason=error.message)
    _put_back(segment, segment.attempts, 0.0)
    return None


def _is_superseded(segment: Segment) -> bool:
    """Whether the second request continues, or has fetched the rest already."""
    was_aborted = segment.aborted and not segment.stalled and not segment.is_preempted
    return segment.twin in segment.file.active or was_aborted


def _without_origin(segment: Segment, error: DownloadError, now: float) -> DownloadError | None:
    """Go on with the peers alone where the origin has failed; the failure if they give nothing."""
    file, swarm = segment.file, segment.file.job.swarm
    is_outage = error.kind in {FailureKind.UNREACHABLE, FailureKind.THROTTLED}
    if swarm is None or file.shared is None or not is_outage or not swarm.sustains(now):
        return error
    log.debug("Origin failed, peers go on", path=file.remote.path, reason=error.kind.value)
    if file.is_suspect:
        liar = file.start_over()
        if liar is not None and not swarm.relays:
            swarm.exchange.blame(liar, file.remote.path)
    else:
        _put_back(segment, segment.attempts, now + MAX_DELAY_SECONDS)
    return None


def _exceeds_limit(segment: Segment, error: DownloadError) -> bool:
    """Whether a request may have failed because its model has too many connections."""
    job = segment.file.job
    # The others may have ended between the refusal and now.
    came = job.received > segment.job_received
    # Requests that begin together are refused before the first bytes of the one that is not.
    came_before = job.received > segment.received_before
    return segment.position == segment.begun and is_limit(
        error,
        segment.attempts,
        others=came or bool(job.from_origin),
        coming=came_before or any(other.position > other.begun for other in job.from_origin),
        has_come=job.received > 0,
    )


def _put_back(segment: Segment, attempts: int, not_before: float) -> None:
    """Schedule the rest of a segment for a later request."""
    file, job = segment.file, segment.file.job
    if not file.remote.ranges:
        file.restart(attempts, not_before)
        job.enqueue(file)
        return
    # A second request may have brought a part of it, which may have been digested since.
    for gap in file.staged.blocks.gaps(segment.position, segment.end):
        job.give_back(file, Gap(gap.start, gap.end, attempts, not_before, job.received))
