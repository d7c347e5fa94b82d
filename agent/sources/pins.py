"""The pins of files at HTTP servers: ETags and times, compared by meaning. Pure.

Servers write one ETag in several ways: with quotes or without, as a weak one (`W/`), or with the
name of a compression behind it.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# Last-Modified counts whole seconds: when it is this old, every later change has another time.
SETTLED_SECONDS = 2.0

_WEAK = "W/"
_TIME = re.compile(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \S+")
# The suffixes of Apache, Jetty and proxies.
_COMPRESSION = re.compile(r"[-;](-?)(gzip|br|deflate|zstd)$")
# The ETags of gateways that have none: zeros, nothing, or the MD5 of nothing.
_NO_TAG = re.compile(r"0*(-\d+)?")
_MD5_OF_NOTHING = "d41d8cd98f00b204e9800998ecf8427e"


def tag_of(value: str | None, size: int | None = None) -> str | None:
    """An ETag as it is written, for a file of this size; None if it identifies no version."""
    found = (value or "").strip()
    meant = _meant(found)
    if _NO_TAG.fullmatch(meant) or (meant == _MD5_OF_NOTHING and size):
        return None
    return found


def version_of(headers: Mapping[str, str], size: int | None = None) -> str | None:
    """The best pin of an answer: a strong ETag, else the time of the last change, else any ETag."""
    tag = tag_of(headers.get("ETag"), size)
    if tag is not None and not tag.startswith(_WEAK):
        return tag
    return _time_of(headers) or tag


def holds(version: str | None, headers: Mapping[str, str]) -> bool:
    """Whether all answers with this version have the same bytes, judged by the first answer.

    A weak ETag only means that files are equivalent, and a time is that of every change within its
    second.
    """
    if version is None:
        return False
    if is_time(version):
        return settled_time(headers) is not None
    return not version.startswith(_WEAK)


def is_time(version: str) -> bool:
    """Whether a version is a time rather than an ETag."""
    return _TIME.fullmatch(version) is not None


def is_settled(modified: str, now: str | None) -> bool:
    """Whether every change from `now` on gives the file another time. Both are of one clock."""
    then, at = _parsed(modified), _parsed(now)
    return then is not None and at is not None and (at - then).total_seconds() >= SETTLED_SECONDS


def settled_time(headers: Mapping[str, str]) -> str | None:
    """The time of the last change, if it was settled when the answer was sent."""
    modified = _time_of(headers)
    return modified if modified and is_settled(modified, headers.get("Date")) else None


def condition(version: str) -> dict[str, str]:
    """The headers that request this version only, where HTTP has a condition for it."""
    if is_time(version) or version.startswith(_WEAK):
        # If-Match never matches a weak ETag; a time is compared with the answer's own.
        return {}
    return {"If-Match": version}


def is_same(version: str, headers: Mapping[str, str]) -> bool | None:
    """Whether an answer has this version; None if it has no such header."""
    if is_time(version):
        found = _time_of(headers)
        return None if found is None else _parsed(found) == _parsed(version)
    found = headers.get("ETag")
    return None if not found else _meant(found) == _meant(version)


def is_unchanged(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether the headers of two answers show no change of the file.

    Servers behind one address may have different ETags for one file: then a settled time decides.
    """
    version = version_of(before)
    if version is None or is_same(version, after) is not False:
        return True
    modified = settled_time(before)
    return modified is not None and is_same(modified, after) is True


def _meant(tag: str) -> str:
    return _COMPRESSION.sub("", tag.strip().removeprefix(_WEAK).strip().strip('"'))


def _time_of(headers: Mapping[str, str]) -> str | None:
    found = headers.get("Last-Modified", "").strip()
    return found if is_time(found) else None


def _parsed(value: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(value) if value else None
    except ValueError:
        return None
    # A header that some proxies send twice is parsed as a time without a zone.
    return found and found.replace(tzinfo=found.tzinfo or UTC)
