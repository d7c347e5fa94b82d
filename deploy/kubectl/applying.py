"""What `kubectl apply` makes of a stored object and a document. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from deploy.kube import meta

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.kube.kinds import KubeObject

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# The field manager of kubectl apply --server-side.
_MANAGER = "kubectl"
# Of the metadata, only these are for users to write.
_METADATA = ("labels", "annotations")

# Fields of an object as nested mappings. A mapping without items is a whole field.
_Fields = dict[str, Any]


def applied(stored: KubeObject, wanted: KubeObject) -> KubeObject:
    """The stored object after `kubectl apply` of a document.

    A field that the document leaves out goes if an earlier apply had set it. It stays if something
    else has set it, such as `spec.retention` by `pin`.
    """
    own = _own_fields(stored)
    metadata = {key: value for key, value in stored["metadata"].items() if key != "managedFields"}
    for field in _METADATA:
        before, now = metadata.pop(field, None) or {}, wanted["metadata"].get(field) or {}
        merged = _merged(before, now, (own.get("metadata") or {}).get(field))
        if merged:
            metadata[field] = merged
    spec = _merged(stored.get("spec") or {}, wanted.get("spec") or {}, own.get("spec"))
    return {**stored, "metadata": metadata, "spec": spec}


def _merged(stored: Mapping[str, Any], wanted: Mapping[str, Any], own: object) -> dict[str, Any]:
    """By the rules of a JSON merge patch: lists are replaced, and null removes a field."""
    own = own if isinstance(own, dict) else {}
    merged = {key: value for key, value in stored.items() if key in wanted or key not in own}
    for key, value in wanted.items():
        before = stored.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(before, dict):
            merged[key] = _merged(before, value, own.get(key))
        else:
            merged[key] = value
    return merged


def _own_fields(stored: KubeObject) -> _Fields:
    """The fields that an earlier apply has set, and nothing else wants."""
    try:
        last = json.loads(meta.annotations_of(stored).get(_LAST_APPLIED) or "")
    except ValueError:
        last = None
    if isinstance(last, dict):
        # Nothing in it is of interest but the names.
        return last
    own: _Fields = {}
    others: _Fields = {}
    for entry in stored["metadata"].get("managedFields") or ():
        is_own = (entry.get("manager"), entry.get("operation")) == (_MANAGER, "Apply")
        _add(own if is_own else others, entry.get("fieldsV1") or {})
    return _without(own, others)


def _add(fields: _Fields, managed: Mapping[str, Any]) -> None:
    """Add the fields of managedFields, whose names begin with `f:`."""
    for name, inner in managed.items():
        if name.startswith("f:"):
            _add(fields.setdefault(name.removeprefix("f:"), {}), inner)


def _without(own: _Fields, others: _Fields) -> _Fields:
    kept = {}
    for name, inner in own.items():
        if name not in others:
            kept[name] = inner
        elif inner:
            kept[name] = _without(inner, others[name])
    return kept
