"""Checks of a server's answer: it has the bytes that were requested, or it is a typed failure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import requests
import urllib3

from agent.sources.pins import is_same, settled_time
from agent.sources.proxies import ByProxyError
from agent.structs.causes import status_failure, unreachable
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import OtherTagError, RangeIgnoredError, UnpinnedError

if TYPE_CHECKING:
    from collections.abc import Mapping

# The longest Retry-After that is followed.
MAX_RETRY_AFTER_SECONDS = 300.0
# The errors of requests and urllib3.
ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)
# The statuses of answers that have a file, or a range of it.
WITH_FILE = frozenset({200, 206})
# Content codings that servers apply to an answer. Other values of Content-Encoding, such as
# aws-chunked and utf-8, are left behind by clients of object stores and do not describe the bytes.
_CODINGS = {"br", "compress", "dcb", "dcz", "deflate", "gzip", "x-compress", "x-gzip", "zstd"}
_CODE = re.compile(r"[A-Za-z_]{1,64}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Get:
    """A request for the bytes from `start` up to and without `end`.

    `where` names the file in messages. `size` is that of the whole file; where `size` or `end` is
    None the file is read to its end. Without `ranges` no Range is sent, and the answer is the whole
    body. `version` must be the ETag or Last-Modified of the answer. With `as_stored`, a content
    coding is a mere label and `size` counts the coded bytes; without it, a coded answer is refused.
    With `alone`, this answer is the whole file, and its ETag or time is compared once more after
    the last byte.
    """

    url: str
    where: str
    start: int
    end: int | None
    size: int | None = None
    version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    ranges: bool = True
    as_stored: bool = False
    alone: bool = False

    @property
    def length(self) -> int | None:
        """The number of bytes that the answer must have; None if it is not known."""
        return None if self.end is None else self.end - self.start


def coding_of(headers: Mapping[str, str]) -> str:
    """The codings that an answer's Content-Encoding names, without unknown ones; may be empty."""
    words = (word.strip() for word in headers.get("Content-Encoding", "").lower().split(","))
    return ", ".join(word for word in words if word in _CODINGS)


def check_answer(response: requests.Response, get: Get) -> None:
    """Raises DownloadError if an answer does not have the bytes of the request."""
    headers = response.headers
    if response.status_code not in WITH_FILE:
        raise without_file(response, get.where)
    announced, coding = headers.get("Content-Length", ""), coding_of(headers)
    if coding and not get.as_stored:
        raise compressed(coding, get.where)
    if get.version:
        same = is_same(get.version, headers)
        if same is False:
            raise OtherTagError(get.where, settled_time(headers))
        if same is None and get.ranges:
            # Nothing shows that the range has the same version as the others.
            raise UnpinnedError(get.where)
    if coding and not _may_be_stored(response, get):
        raise compressed(coding, get.where)
    _check_part(response, get)
    if get.length is not None and announced.isdecimal() and int(announced) != get.length:
        if get.length == get.size:
            # The whole file has another size than the listing said.
            raise changed(get.where)
        raise DownloadError(
            FailureKind.CORRUPT,
            f"{get.where} answered {announced} bytes to a request for {get.length}: the server, or "
            "a proxy before it, does not keep to HTTP; it is tried again by itself",
        )


def _may_be_stored(response: requests.Response, get: Get) -> bool:
    """Whether a coded answer can be the stored bytes.

    A server that encodes while it sends changes the length, or does not announce one.
    """
    expected = get.size if response.status_code == 200 else get.length
    announced = response.headers.get("Content-Length", "")
    return (
        expected is None
        or announced == str(expected)
        or (not announced and response.status_code == 206)
    )


def _check_part(response: requests.Response, get: Get) -> None:
    """Raise DownloadError for an answer with another part of the file than was requested."""
    is_part = response.status_code == 206
    if get.ranges and not is_part:
        if get.start or (get.end is not None and get.end != get.size):
            raise RangeIgnoredError(get.where)
    elif is_part:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        check = _check_range if get.ranges else _check_whole
        check(found, get)


def _check_range(found: re.Match[str] | None, get: Get) -> None:
    if found is None:
        raise RangeIgnoredError(get.where)
    first, last, total = found.groups()
    if get.size is not None and total != "*" and int(total) != get.size:
        raise changed(get.where)
    if int(first) != get.start or (get.end is not None and int(last) != get.end - 1):
        raise RangeIgnoredError(get.where)


def _check_whole(found: re.Match[str] | None, get: Get) -> None:
    if found is None or found[1] != "0" or found[3] != str(int(found[2]) + 1):
        raise DownloadError(
            FailureKind.CORRUPT,
            f"{get.where} answered with a part of the file to a request for all of it: the server, "
            "or a proxy before it, does not keep to HTTP; it is tried again by itself",
        )


def changed(where: str) -> DownloadError:
    """The failure for a file that is no longer the one that was listed."""
    return DownloadError(
        FailureKind.CHANGED,
        f"{where} changed while it was downloaded; the file starts over by itself",
    )


def compressed(encoding: str, where: str) -> DownloadError:
    """The failure for a server that compresses a file although the request refused that."""
    return DownloadError(
        FailureKind.UNSUPPORTED,
        f"{where} is sent {encoding}-compressed although it was asked for as it is: switch the "
        "server's compression off for it",
    )


def answered(
    answer: requests.Response,
    where: str,
    detail: str = "",
    *,
    status: int | None = None,
    anonymous: bool = False,
) -> DownloadError:
    """The failure for an answer of 400 or above.

    `detail` is the server's code for it, and `status` replaces a status that says less than the
    code. `anonymous` is whether the request had no credentials.
    """
    status = answer.status_code if status is None else status
    if anonymous and status in {401, 403}:
        detail = f"{detail} to a request without credentials".lstrip()
    return status_failure(status, where, detail, retry_after=retry_after(answer.headers))


def without_file(answer: requests.Response, where: str) -> DownloadError:
    """The failure for an answer to a GET whose status is none of WITH_FILE."""
    if answer.status_code >= 400:
        return answered(answer, where)
    return DownloadError(
        FailureKind.UNREACHABLE,
        f"{where} answered {answer.status_code}, which comes without the file: check the address, "
        "it is tried again by itself",
        retry_after=retry_after(answer.headers),
    )


def code_of(value: object) -> str:
    """A server's code for an error, if it can stand in a message: it may have sent any text."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait before the next request, from Retry-After: a number or a date."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    wait = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(wait, 0.0), MAX_RETRY_AFTER_SECONDS)


def status_of(error: Exception) -> int | None:
    """The HTTP status of the answer that caused an error; None if there was none."""
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def failure(error: Exception, where: str) -> DownloadError:
    """The one place where errors of requests and urllib3 become failures."""
    if isinstance(error, DownloadError):
        return error
    if isinstance(error, ByProxyError):
        return error.failure(where)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return answered(error.response, where)
    if isinstance(error, requests.TooManyRedirects):
        return DownloadError(
            FailureKind.UNSUPPORTED, f"{where} redirects in circles: check sourceModelUri"
        )
    if isinstance(error, ValueError) and not isinstance(
        error, UnicodeError | requests.JSONDecodeError
    ):
        return DownloadError(
            FailureKind.UNSUPPORTED, f"{where} is not a valid URL: check sourceModelUri"
        )
    return unreachable(error, where)
