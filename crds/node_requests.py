"""Requests to a node's agent: annotations of its LocalModelNode, one for each operation and key.

The value is the time of the request. The agent compares that time with what it has noted of the
copy, so that a request is carried out once, and nobody has to remove the annotation.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum

from crds.base import GROUP
from crds.keys import MODEL_KEY_LENGTH

_KEY = re.compile(f"[0-9a-f]{{{MODEL_KEY_LENGTH}}}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")


class Operation(StrEnum):
    """What an agent is asked to do with a copy. The value begins the annotation's name."""

    EVICT = "evict"
    VERIFY = "verify"


def request_annotation(operation: Operation, key: str) -> str:
    """Name of the annotation that requests an operation on the copy of a key."""
    return f"{_prefix(operation)}{key}"


def parse_request_name(annotation: str) -> tuple[Operation, str] | None:
    """Operation and key of an annotation; None for all other annotations.

    Raises ValueError for an annotation of this kind that names no key.
    """
    for operation in Operation:
        if annotation.startswith(_prefix(operation)):
            key = annotation.removeprefix(_prefix(operation))
            if not _KEY.fullmatch(key):
                raise ValueError(f"{key[:64]!r} is not a key of {MODEL_KEY_LENGTH} hex digits")
            return operation, key
    return None


def parse_request_time(value: str) -> datetime:
    """The time of a request. Raises ValueError if the value is not a time of RFC 3339."""
    if not _TIME.fullmatch(value):
        raise ValueError(f"{value[:64]!r} is not a time such as 2026-08-01T12:00:00Z")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value} is outside of the years 1 to 9999") from None


def format_request_time(time: datetime) -> str:
    """The value of a request's annotation, with microseconds: publications have them too."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _prefix(operation: Operation) -> str:
    return f"{operation}.localmodel.{GROUP}/"
