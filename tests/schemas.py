"""Validates objects against the CRD manifests; fields that a schema does not name are refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

_MANIFESTS = Path(__file__).parent.parent / "crds" / "manifests"


@cache
def crd_schemas() -> dict[str, dict[str, Any]]:
    """The schema of each of localmodel's kinds, which refuses fields that it does not name."""
    schemas = {}
    for file in _MANIFESTS.glob("serving.kserve.io_*.yaml"):
        crd = yaml.safe_load(file.read_text())
        (version,) = crd["spec"]["versions"]
        schemas[crd["spec"]["names"]["kind"]] = _closed(version["schema"]["openAPIV3Schema"])
    return schemas


def check_part(kind: str, part: str, value: object) -> None:
    """Raise jsonschema.ValidationError unless the value fits `spec` or `status` of a kind."""
    jsonschema.validate(value, crd_schemas()[kind]["properties"][part])


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    closed = dict(schema)
    if "properties" in schema:
        closed["properties"] = {name: _closed(s) for name, s in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        closed["additionalProperties"] = _closed(schema["additionalProperties"])
    if "items" in schema:
        closed["items"] = _closed(schema["items"])
    return closed
