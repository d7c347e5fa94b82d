"""Pages of S3's listings, read in a fraction of the time that botocore's own parser takes.

botocore builds each object by its general rules for all services, and reads each time by a parser
that guesses the format. Everything else of a page, and every answer that is no page, is left to
botocore.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from botocore.utils import parse_timestamp

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_OBJECT = "Contents"
_TEXTS = {"Key", "ETag", "ChecksumType"}
_LISTS = {"ChecksumAlgorithm"}


def read_quickly(client: Any) -> None:
    """Make a client of boto3 read the objects of its listings by this module."""
    # By this wildcard, botocore calls it before its own handler of "before-parse.s3.*", which would
    # parse the whole body once more.
    client.meta.events.register("before-parse.*.ListObjectsV2", _take_objects)


def _take_objects(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Move the objects from the body of an answer to what botocore adds to the parsed answer."""
    if response_dict["status_code"] >= 300:
        return
    try:
        # As botocore parses it. Expat itself bounds what entities may expand to.
        parser = ET.XMLParser(encoding="utf-8")  # noqa: S314
        page = ET.fromstring(response_dict["body"], parser)  # noqa: S314
    except ET.ParseError:
        return
    objects = [child for child in page if _name(child) == _OBJECT]
    if not objects:
        return
    customized_response_dict[_OBJECT] = [_entry(child) for child in objects]
    page[:] = [child for child in page if _name(child) != _OBJECT]
    response_dict["body"] = ET.tostring(page)


def _entry(listed: Element) -> dict[str, Any]:
    """An object with what is needed of it, as botocore would return it."""
    entry: dict[str, Any] = {}
    for child in listed:
        name, text = _name(child), child.text or ""
        if name in _TEXTS:
            entry[name] = text
        elif name == "Size":
            entry[name] = int(text)
        elif name == "LastModified":
            entry[name] = _time(text)
        elif name in _LISTS:
            entry.setdefault(name, []).append(text)
    return entry


def _name(element: Element) -> str:
    # Stores differ in the namespace, and some have none.
    return element.tag.rpartition("}")[2]


def _time(text: str) -> datetime:
    """A time, in any of the formats that botocore reads. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        parsed: datetime = parse_timestamp(text)
        return parsed
    return found
