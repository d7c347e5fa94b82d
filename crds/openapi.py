"""Structural OpenAPI schemas for the CRDs, made from the types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crds.base import FOR_USERS

if TYPE_CHECKING:
    from pydantic import BaseModel

Schema = dict[str, Any]

_DROPPED = ("title", "default", "additionalProperties", FOR_USERS)


def structural_schema(model: type[BaseModel], *, for_users: bool) -> Schema:
    """The schema of a type without references, nulls, titles and defaults.

    for_users: whether to include the bounds of `crds.base.for_users`. Shape: OpenAPI v3 as
    apiextensions.k8s.io/v1 restricts it. Raises ValueError for a union, which a structural schema
    cannot express.
    """
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}), for_users)


def _convert(schema: Schema, defs: dict[str, Schema], for_users: bool) -> Schema:
    schema = _dereference(schema, defs)
    if for_users:
        schema |= schema.get(FOR_USERS, {})
    if schema.get("x-kubernetes-int-or-string"):
        return {key: value for key, value in schema.items() if key not in _DROPPED}
    converted = {
        key: value for key, value in schema.items() if key not in (*_DROPPED, "$defs", "properties")
    }
    if "const" in converted:
        converted["enum"] = [converted.pop("const")]
    if "properties" in schema:
        converted["properties"] = {
            name: _convert(value, defs, for_users) for name, value in schema["properties"].items()
        }
    elif isinstance(schema.get("additionalProperties"), dict):
        converted["additionalProperties"] = _convert(
            schema["additionalProperties"], defs, for_users
        )
    if "items" in schema:
        converted["items"] = _convert(schema["items"], defs, for_users)
    return converted


def _dereference(schema: Schema, defs: dict[str, Schema]) -> Schema:
    """Resolve `$ref` and `X | null`. Keys beside a reference override it; rules are joined."""
    while "$ref" in schema or "anyOf" in schema:
        if "$ref" in schema:
            target = defs[schema["$ref"].rsplit("/", 1)[-1]]
            beside = {key: value for key, value in schema.items() if key != "$ref"}
        elif schema.get("x-kubernetes-int-or-string"):
            return schema
        else:
            options = [option for option in schema["anyOf"] if option.get("type") != "null"]
            if len(options) != 1:
                raise ValueError(f"a structural schema has no unions: {schema}")
            target = options[0]
            beside = {key: value for key, value in schema.items() if key != "anyOf"}
        rules = [
            *target.get("x-kubernetes-validations", ()),
            *beside.get("x-kubernetes-validations", ()),
        ]
        schema = target | beside
        if rules:
            schema["x-kubernetes-validations"] = rules
    return schema
