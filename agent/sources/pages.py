"""Answers of 200 that are no file: pages to sign in, and messages of errors. Pure.

A name is one thing, a label another, and what the bytes begin with a third. Servers label real
files as text/html, so no label alone makes a page of one.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# So much of a file shows what it is. A message of an error is shorter.
START_BYTES = 4096

_HTML = {"text/html", "application/xhtml+xml"}
_PAGES = {".html", ".htm", ".xhtml", ".xht", ".shtml"}
# Files that begin as pages or messages do: data, and texts that may quote one or be a part of one.
_DOCUMENTS = {".json", ".jsonl", ".ndjson", ".ipynb", ".xml", ".svg", ".pmml"}
_TEXTS = {".txt", ".md", ".markdown", ".rst", ".jinja", ".jinja2", ".j2", ".tmpl", ".template"}
_CODECS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# What a page may have before it: blanks, comments, and the head of XML.
_BEFORE = re.compile(r"(?:\s|<!--.*?-->|<\?xml.*?\?>)*+", re.DOTALL)
_PAGE = re.compile(r"<!doctype\s+html|<html[\s>]", re.IGNORECASE)
# A list of a model's tokens begins with what looks like one: <unk>, <s>.
_TAG = re.compile(
    r"<(?:!--|[!?][a-z]|"
    r"(?:html|head|body|title|meta|link|script|style|div|span|p|a|h[1-6]|form|table|center|img|br)"
    r"[\s>/])",
    re.IGNORECASE,
)
_XML_ERROR = re.compile(r"<(?:[\w.-]+:)?(?:errors?|fault|exception)[\s>/]", re.IGNORECASE)
_ERRORS = {"error", "errors", "fault", "exception"}
# Where the label says JSON too.
_MESSAGES = {"message", "detail", "msg"}
# What all of these begin with.
_FIRST = frozenset(b"<{ \t\r\n\xef\xfe\xff")


def may_be_page(name: str, headers: Mapping[str, str], first: bytes) -> bool:
    """Whether a file that begins or is labelled so deserves a look at its beginning."""
    if _is_page_name(name):
        return False
    return _type(headers) in _HTML or not _FIRST.isdisjoint(first[:1])


def instead_of_file(name: str, headers: Mapping[str, str], start: bytes) -> str:
    """What is sent in the place of a file of this name, for a message; empty if it is a file.

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
    """The beginning as a text, as far as it is one."""
    if "gzip" in headers.get("Content-Encoding", "").lower() and start.startswith(b"\x1f\x8b"):
        # Pages are often sent so, whatever was asked for; a file is then what is in it no more.
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
