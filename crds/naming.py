"""Names that hooks give to objects, and agents read on pods."""

from __future__ import annotations


def claim_name(cache: str, group: str) -> str:
    """KServe's name of the claim for a cache on a group, in any namespace."""
    return f"{cache}-{group}"
