"""Answers with the status 200 that are no file: sign-in pages, and messages of errors. Pure.

The name, the Content-Type and the first bytes are judged together. Servers label real files as
text/html, so a label alone does not make an answer a page.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# How many bytes are judged. A message of an error is shorter.
START_BYTES = 4096

_HTML = {"text/html", "application/xhtml+xml"}
_PAGES = {".html", ".htm", ".xhtml", ".xht", ".shtml"}
# Files that may begin as pages or messages do: data, and texts that quote a page.
_DOCUMENTS = {".json", ".jsonl", ".ndjson", ".ipynb", ".xml", ".svg", ".pmml"}
_TEXTS = {".txt", ".md", ".markdown", ".rst", ".jinja", ".jinja2", ".j2", ".tmpl", ".template"}
_CODECS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# What may stand before a page: blanks, comments, and the declaration of XML.
_BEFORE = re.compile(r"(?:\s|<!--.*?-->|<\?xml.*?\?>)*+", re.DOTALL)
_PAGE = re.compile(r"<!doctype\s+html|<html[\s>]", re.IGNORECASE)
# Tags of HTML. The list of a model's tokens begins with others: <unk>, <s>.
_TAG = re.compile(
    r"<(?:!--|[!?][a-z]|"
    r"(?:html|head|body|title|meta|link|script|style|div|span|p|a|h[1-6]|form|table|center|img|br)"
    r"[\s>/])",
    re.IGNORECASE,
)
_XML_ERROR = re.compile(r"<(?:[\w.-]+:)?(?:errors?|fault|exception)[\s>/]", re.IGNORECASE)
_ERRORS = {"error", "errors", "fault", "exception"}
# Also keys of an error where the label is JSON.
_MESSAGES = {"message", "detail", "msg"}
# The first bytes of pages and messages.
_FIRST = frozenset(b"<{ \t\r\n\xef\xfe\xff")


def may_be_page(name: str, headers: Mapping[str, str], first: bytes) -> bool:
    """Whether the label or the first byte of an answer is that of a page or a message."""
    if _is_page_name(name):
        return False
    return _type(headers) in _HTML or not _FIRST.isdisjoint(first[:1])


def instead_of_file(name: str, headers: Mapping[str, str], start: bytes) -> str:
    """What an answer is in place of the file of this name, for a message; empty for a file.

    `start` is the body's first START_BYTES, or all of it.
    """
    if _is_page_name(name):
        return ""
    ending = PurePosixPath(name).suffix.lower()
    body = _BEFORE.sub("", _text(headers, start), count=1)
    quotes = ending in _TEXTS or ending in _DOCUMENTS
    is_html = _type(headers) in _HTML
    if _PAGE.match(body) and (is_html or not quotes):
        return "a web page"
    if is_html and _TAG.match(body) and not quotes:
        return "a web page"
    if len(start) < START_BYTES and ending not in _DOCUMENTS and _is_error(headers, body):
        return "a message of an error"
    return ""


def _is_page_name(name: str) -> bool:
    # index.html.gz too.
    return not _PAGES.isdisjoint(PurePosixPath(name.lower()).suffixes)


def _type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _text(headers: Mapping[str, str], start: bytes) -> str:
    """The first bytes as text."""
    if "gzip" in headers.get("Content-Encoding", "").lower() and start.startswith(b"\x1f\x8b"):
        # Servers often compress pages although the request refused that.
        try:
            start = zlib.decompressobj(31).decompress(start, START_BYTES)
        except zlib.error:
            return ""
    codec = next((codec for mark, codec in _CODECS.items() if start.startswith(mark)), "utf-8")
    return start.decode(codec, "replace")


def _is_error(headers: Mapping[str, str], body: str) -> bool:
    if _XML_ERROR.match(body):
        return True
    if not body.startswith("{"):
        return False
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return False
    keys = _ERRORS | (_MESSAGES if "json" in _type(headers) else set())
    return isinstance(found, dict) and not keys.isdisjoint(map(str.lower, found))
