"""Puts the tables of one size into the document, and begins it where there is none. Pure."""

from __future__ import annotations

from tests.bench.table import between_markers

HEADING = "# Scale\n"


def updated(document: str, content: str, nodes: int, models: int) -> str:
    """The document with the tables of this size where they were, or at its end."""
    name = f"control-{nodes}x{models}"
    document = document or HEADING
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in document:
        document = f"{document.rstrip()}\n\n{begin}\n{end}\n"
    return between_markers(document, content, name)
