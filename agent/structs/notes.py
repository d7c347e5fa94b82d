"""What is noted of a model beside its manifest: its use, its eviction, and what failed."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from localmodel.agent.structs.failures import FailureKind
from localmodel.agent.structs.manifest import Grant
from localmodel.agent.structs.sizes import EvictionReason
from localmodel.crds.base import Model


class Usage(Model):
    """When a model was published, and when a pod used it last, as far as the agent saw."""

    schema_version: Literal[1] = 1
    published_time: datetime
    last_used_time: datetime | None = None

    def age_from(self, now: datetime) -> float:
        """Seconds since 1970 that its age counts from; infinity for a time in the future."""
        last = self.last_used_time or self.published_time
        return math.inf if last > now else last.timestamp()


class BadFile(Model):
    """A published file that is not as it was downloaded, and what is wrong with it."""

    path: str
    problem: str


class Scrub(Model):
    """When a published model was read last, and the files that were found to be bad."""

    schema_version: Literal[1] = 1
    time: datetime
    bad: tuple[BadFile, ...] = ()


class Evicted(Model):
    """That a model was evicted: when, how many bytes of the disk it took, and why."""

    schema_version: Literal[1] = 1
    time: datetime
    size: int
    reason: EvictionReason
    message: str


class FailedAttempt(Model):
    """The last attempt of one requester, if it failed: the how many-th, and when the next is due.

    `expected` are the hashes that were asked for then.
    """

    requester: Grant
    expected: tuple[str, ...] = ()
    kind: FailureKind
    detail: str
    attempts: int
    retry_time: datetime


class FailedAttempts(Model):
    """Why a model is not here: so that a restart begins no new series of attempts."""

    schema_version: Literal[1] = 1
    attempts: tuple[FailedAttempt, ...]
