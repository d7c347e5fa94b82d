"""Text of objects for a terminal. Pure."""

from __future__ import annotations

import re

# Control characters (C0 and C1) but tab and line feed, and those that change the direction of text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text without characters that change what a terminal shows of other text.

    Messages of objects have words of sources, webhooks and other programs.
    """
    return _UNSAFE.sub("", text)


def escaped(json: str) -> str:
    """A JSON document in which these characters are escaped: the value stays the same."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", json)
