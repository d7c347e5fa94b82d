"""The API reference (docs/api.md), from the schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.base import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crds.kinds import Kind
    from crds.openapi import Schema

_INTRODUCTION = f"""\
<!-- Made from the types in crds/ by `make generate`. Do not edit. -->
# API reference

All kinds are of `{API_VERSION}`, KServe's API group, and in the category `localmodel`
(`kubectl get localmodel`). Fields marked with * are required. Below each table are the messages
with which the API server refuses an object.
"""


def reference_page(kinds: Sequence[Kind], schemas: Mapping[str, Schema]) -> str:
    """The whole page as Markdown."""
    sections = [_INTRODUCTION]
    for kind in kinds:
        schema = schemas[kind.name]
        scope = "Namespaced" if kind.namespaced else "Cluster-scoped"
        sections.append(f"\n## {kind.name}\n\n{_flat(schema['description'])}\n")
        sections.append(f"\n{scope}, short name `{kind.short_name}`.\n")
        sections.append("\n| field | type | meaning |\n| --- | --- | --- |\n")
        parts = {name: part for name, part in schema["properties"].items() if name in _PARTS}
        required = schema.get("required", ())
        sections += [row for name in parts for row in _rows(name, parts[name], name in required)]
        rules = list(_rules(schema))
        if rules:
            sections.append("\nThe API server refuses an object with these messages:\n\n")
            sections += [f"- {rule}\n" for rule in dict.fromkeys(rules)]
    return "".join(sections)


_PARTS = ("spec", "status")


def _rows(path: str, schema: Schema, required: bool) -> Iterator[str]:
    mark = "*" if required else ""
    meaning = _flat(schema.get("description", "")).replace("|", "\\|")
    yield f"| `{path}`{mark} | {_type(schema)} | {meaning} |\n"
    inner = schema
    while inner.get("type") == "array":
        inner, path = inner["items"], path + "[]"
    if isinstance(inner.get("additionalProperties"), dict):
        inner = inner["additionalProperties"]
    needed = inner.get("required", ())
    for name, value in inner.get("properties", {}).items():
        yield from _rows(f"{path}.{name}", value, name in needed)


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "Quantity" if "pattern" in schema else "integer or percentage"
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    if schema.get("format") == "date-time":
        return "time"
    return str(schema["type"])


def _rules(schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["message"]
    for inner in schema.get("properties", {}).values():
        yield from _rules(inner)
    if "items" in schema:
        yield from _rules(schema["items"])


def _flat(text: str) -> str:
    return " ".join(text.split())
