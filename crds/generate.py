"""Generate the CRD manifests and the API reference from the types.

`python -m crds.generate` writes the files; `--check` fails when a file differs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from crds.base import GROUP, VERSION
from crds.generated import write_or_check
from crds.kinds import KINDS, Column, Kind
from crds.openapi import Schema, structural_schema
from crds.reference import reference_page

_CATEGORY = "localmodel"
_HEADER = "# Made from the types in crds/ by `make generate`. Do not edit.\n"


def object_schema(kind: Kind) -> Schema:
    """Schema of a whole object of the kind."""
    schema = structural_schema(kind.model, for_users=kind.written_by_users)
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
        "kind": {"type": "string", "description": f"{kind.name}."},
        **schema["properties"],
        # A CRD must not repeat the schema of metadata, which is Kubernetes' own.
        "metadata": {"type": "object"},
    }
    schema["required"] = [name for name in schema["required"] if name != "metadata"]
    if not schema["required"]:
        del schema["required"]
    if kind.written_by_users:
        # Tools that wait (kstatus, Helm, Flux) must not treat an object as finished before a hook
        # has seen it.
        status = schema["properties"]["status"]
        status["default"] = {"observedGeneration": -1}
        # The same holds if another controller wrote the status. So the field always exists; an
        # object without it comes from another CRD: see hooks/lost_fields.py.
        status["properties"]["observedGeneration"] |= {"default": -1}
    if kind.rules:
        schema["x-kubernetes-validations"] = [rule.to_json() for rule in kind.rules]
    return schema


def manifest(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    schema = object_schema(kind)
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": schema},
    }
    if "status" in schema["properties"]:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "localmodel"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": [_CATEGORY],
            },
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    if column.wide:
        made["priority"] = 1
    return made


def generated_files() -> dict[Path, str]:
    """Path and content of every generated file."""
    files = {
        Path("crds/manifests") / f"{GROUP}_{kind.plural}.yaml": _HEADER
        + yaml.safe_dump(manifest(kind), sort_keys=False, width=100)
        for kind in KINDS
    }
    files[Path("crds/manifests/kustomization.yaml")] = _HEADER + yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": sorted(path.name for path in files),
        },
        sort_keys=False,
    )
    schemas = {kind.name: object_schema(kind) for kind in KINDS}
    files[Path("docs/api.md")] = reference_page(KINDS, schemas)
    return files


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check name those that differ and return 1."""
    return write_or_check(
        generated_files,
        arguments,
        program="crds.generate",
        description=__doc__,
        source="the types",
    )


if __name__ == "__main__":
    sys.exit(main())
