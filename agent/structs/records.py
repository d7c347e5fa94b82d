"""The records of a model beside its manifest: usage, scrub, eviction and failed attempts."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from agent.structs.failures import FailureKind
from agent.structs.json_record import JsonRecord
from agent.structs.manifest import Grant
from agent.structs.sizes import EvictionReason


class Usage(JsonRecord, frozen=True, kw_only=True):
    """When a copy was published, and when the agent last observed a pod that used it.

    `download_seconds`: how long the last download of the whole model took.
    """

    schema_version: Literal[1] = 1
    published_time: datetime
    last_used_time: datetime | None = None
    download_seconds: int | None = None

    def age_from(self, now: datetime) -> float:
        """When the copy's age begins, in seconds since 1970; infinity for a time in the future."""
        last = self.last_used_time or self.published_time
        return math.inf if last > now else last.timestamp()


class BadFile(JsonRecord, frozen=True, kw_only=True):
    """A published file that differs from its manifest, and the difference."""

    path: str
    problem: str


class Scrub(JsonRecord, frozen=True, kw_only=True):
    """The last scrub of a copy: its time, and the bad files that it found."""

    schema_version: Literal[1] = 1
    time: datetime
    bad: tuple[BadFile, ...] = ()


class Evicted(JsonRecord, frozen=True, kw_only=True):
    """The eviction of a copy: its time, the bytes of disk that the copy took, and why."""

    schema_version: Literal[1] = 1
    time: datetime
    size: int
    reason: EvictionReason
    message: str


class FailedAttempt(JsonRecord, frozen=True, kw_only=True):
    """The last failed attempt of one requester, its number, and the time of the next attempt.

    `expected` are the hashes that the request had.
    """

    requester: Grant
    expected: tuple[str, ...] = ()
    kind: FailureKind
    detail: str
    attempts: int
    retry_time: datetime


class FailedAttempts(JsonRecord, frozen=True, kw_only=True):
    """The failed attempts for a model, so that backoffs continue after a restart."""

    schema_version: Literal[1] = 1
    attempts: tuple[FailedAttempt, ...]
