"""Comparison of parts of core/v1 volumes by meaning and not by text.

The API server drops empty lists and empty classes, adds defaults and rewrites quantities. People
write the same selector in several ways.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from crds.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NormalizedNodes = frozenset[tuple[frozenset[Any], ...]]

# Lists whose order has no meaning.
_SETS = ("accessModes",)
_AMOUNTS = ("capacity",)
_PATHS = ("path",)


def normalized_nodes(
    affinity: Mapping[str, Any] | None, but: Callable[[str], bool] = lambda _: False
) -> NormalizedNodes | None:
    """A volume's nodeAffinity in a form that can be compared; None: all nodes.

    The order of terms, expressions and values is dropped, and so are terms without expressions,
    which match no node. but: whether to ignore the expressions of a label key.
    """
    required = (affinity or {}).get("required")
    if not required:
        return None
    terms: Iterable[Mapping[str, Any]] = required.get("nodeSelectorTerms") or ()
    parts = (
        tuple(
            frozenset(
                (one["key"], one.get("operator"), frozenset(one.get("values") or ()))
                for one in term.get(field) or ()
                if not but(one["key"])
            )
            for field in ("matchExpressions", "matchFields")
        )
        for term in terms
    )
    return frozenset(filter(any, parts))


def normalized_path(path: str | None) -> str | None:
    """The path without double and trailing slashes."""
    return path and posixpath.normpath(f"/{path.lstrip('/')}")


def covers(wanted: Any, found: Any) -> bool:
    """Whether a part of a stored volume has all of what is wanted. Further fields are ignored."""
    if isinstance(wanted, dict):
        there = found if isinstance(found, dict) else {}
        return all(_covers_field(key, value, there.get(key)) for key, value in wanted.items())
    if not wanted:
        return not found
    if isinstance(wanted, list):
        same_length = isinstance(found, list) and len(wanted) == len(found)
        return same_length and all(map(covers, wanted, found))
    return bool(wanted == found)


def _covers_field(key: str, wanted: Any, found: Any) -> bool:
    if key == "nodeAffinity":
        return normalized_nodes(wanted) == normalized_nodes(found)
    if key in _AMOUNTS:
        return _amounts(wanted) == _amounts(found)
    if key in _SETS:
        return frozenset(wanted or ()) == frozenset(found or ())
    if key in _PATHS:
        return normalized_path(wanted) == normalized_path(found)
    return covers(wanted, found)


def _amounts(amounts: Mapping[str, Any] | None) -> dict[str, int | str]:
    return {resource: _amount(str(one)) for resource, one in (amounts or {}).items()}


def _amount(text: str) -> int | str:
    # The API server stores quantities with exponents that are too large for parse_quantity.
    try:
        return parse_quantity(text)
    except ValueError:
        return text
