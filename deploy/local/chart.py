"""Write deploy/chart/files: what the chart renders, as kustomize renders it.

`make generate`. Needs kubectl, which `make kube` builds. The chart's templates change these objects
by the chart's values, and have no objects of their own but the hooks' token.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from deploy.local.layout import CHECKOUT, KUBECTL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CHART = CHECKOUT / "deploy/chart"
FILES = CHART / "files"
OVERLAYS = ("standalone", "kserve")
# Additions to an overlay. A folder of deploy/components that is missing has no file.
COMPONENTS = ("hooks-token", "kubelet-configz", "startup-taint", "monitoring")
# The lists of a container to which a component may add.
CONTAINER_LISTS = ("env", "volumeMounts")
README = "README.md"
# An uninstall of the release must delete no CRD, and so no object and no model.
KEEP = {"helm.sh/resource-policy": "keep"}
_PAGE = """\
# Chart of localmodel

It renders the same objects as `deploy/overlays`, `metacontroller`, `crds/manifests` and
`deploy/pods` with kustomize. [docs/install.md](../../docs/install.md) says how to install, upgrade
and uninstall it. `make generate` makes this page of `values.yaml`, and `files/` by kustomize.
"""
_API_VERSION = "kustomize.config.k8s.io/v1beta1"


class RenderError(Exception):
    """A kustomization does not render, or the chart cannot have it. Says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files. With --check only report those that are out of date, with exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.chart", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if stale")
    options = parser.parse_args(arguments)
    try:
        rendered = files()
    except RenderError as error:
        parser.error(str(error))
    stale = stale_files(rendered)
    if options.check:
        for name in stale:
            sys.stderr.write(f"{CHART / name} is out of date: run make generate\n")
        return 1 if stale else 0
    for name in stale:
        path = CHART / name
        if name in rendered:
            path.write_text(rendered[name])
        else:
            path.unlink()
    return 0


def stale_files(rendered: Mapping[str, str]) -> list[str]:
    """The names of the files that are missing, differ, or have no source any more."""
    paths = [*FILES.glob("*.yaml"), *CHART.glob(README)]
    present = {str(path.relative_to(CHART)): path.read_text() for path in paths}
    return sorted(name for name in {*present, *rendered} if present.get(name) != rendered.get(name))


def files() -> dict[str, str]:
    """The text of each file by its path in the chart. Raises RenderError."""
    made = {f"files/{name}": text for name, text in _rendered().items()}
    return {**made, README: values_page((CHART / "values.yaml").read_text())}


def _rendered() -> dict[str, str]:
    deploy = CHECKOUT / "deploy"
    found = {f"{name}.yaml": kustomize(deploy / "overlays" / name) for name in OVERLAYS}
    found["controllers.yaml"] = kustomize(CHECKOUT / "metacontroller")
    found["controllers-hooks-token.yaml"] = kustomize(deploy / "components/hooks-token/controllers")
    found["pods.yaml"] = kustomize(deploy / "pods")
    found["metacontroller.yaml"] = _metacontroller()
    with kustomization(resources=["crds/manifests"], commonAnnotations=KEEP) as folder:
        found["crds.yaml"] = kustomize(folder)
    for name in COMPONENTS:
        if (deploy / "components" / name).is_dir():
            found[f"{name}.yaml"] = _component(name)
    return found


def kustomize(folder: Path) -> str:
    """The objects of a kustomization. Raises RenderError."""
    command = [str(KUBECTL), "kustomize", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise RenderError(f"there is no {KUBECTL}: run make kube") from error
    if done.returncode != 0:
        raise RenderError(f"kubectl cannot render {folder}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def kustomization(
    resources: Sequence[str] = (), components: Sequence[str] = (), **fields: Any
) -> Iterator[Path]:
    """A folder with a kustomization of folders of the checkout."""
    with TemporaryDirectory(dir=CHECKOUT, prefix=".kustomization-") as name:
        folder = Path(name)
        content = {
            "apiVersion": _API_VERSION,
            "kind": "Kustomization",
            "resources": [os.path.relpath(CHECKOUT / path, folder) for path in resources],
            "components": [os.path.relpath(CHECKOUT / path, folder) for path in components],
            **fields,
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
        yield folder


def _metacontroller() -> str:
    """Metacontroller's install without its CRDs, which are a file of its project."""
    source = CHECKOUT / "metacontroller/install"
    listed = yaml.safe_load((source / "kustomization.yaml").read_text())["resources"]
    local = [name for name in listed if "://" not in name]
    with kustomization() as folder:
        for name in local:
            (folder / name).write_text((source / name).read_text())
        content = {"apiVersion": _API_VERSION, "kind": "Kustomization", "resources": local}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
        return kustomize(folder)


def _component(name: str) -> str:
    """The objects that a component adds to the base, and what it adds to the programs."""
    base = objects(kustomize(CHECKOUT / "deploy/base"))
    path = f"deploy/components/{name}"
    with kustomization(resources=["deploy/base"], components=[path]) as folder:
        changed = objects(kustomize(folder))
    added = [found for key, found in changed.items() if key not in base]
    for key, found in changed.items():
        if key in base and found != base[key]:
            added.append(_additions(name, base[key], found))
    return yaml.safe_dump_all(added, sort_keys=False, width=10**6)


def _additions(component: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What a component adds to the lists of a workload's pod, as the templates read it."""
    name = f"{after['kind']}/{after['metadata']['name']}"
    found: dict[str, Any] = {"additionsTo": name}
    former, pod = (one["spec"]["template"]["spec"] for one in (before, after))
    places = [
        ("volumes", former, pod),
        *((field, former["containers"][0], pod["containers"][0]) for field in CONTAINER_LISTS),
    ]
    for field, had, has in places:
        known = had.pop(field, [])
        if added := [entry for entry in has.pop(field, []) if entry not in known]:
            found[field] = added
    if before != after:
        raise RenderError(
            f"deploy/components/{component} changes more of {name} than "
            f"{', '.join(CONTAINER_LISTS)} and volumes: extend deploy/local/chart.py"
        )
    return found


_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w./-]+):(?: (?P<value>.+))?$")


def values_page(text: str) -> str:
    """The README of the chart: a table of the values, with the comments of values.yaml."""
    defaults = yaml.safe_load(text)
    rows: list[str] = []
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip())
        elif found := _LINE.match(line):
            path = [*path[: len(found["indent"]) // 2], found["key"]]
            value = _value(defaults, path)
            if comment or not isinstance(value, dict) or not value:
                shown = "" if isinstance(value, dict) and value else f"`{json.dumps(value)}`"
                rows.append(f"| `{'.'.join(path)}` | {shown} | {' '.join(comment)} |")
            comment = []
        else:
            comment = []
    return "\n".join([_PAGE, "| value | default | meaning |", "| --- | --- | --- |", *rows, ""])


def _value(defaults: Any, path: Sequence[str]) -> Any:
    for key in path:
        defaults = defaults[key]
    return defaults


def objects(text: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Rendered objects by kind, namespace and name."""
    return {
        (found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"]): found
        for found in yaml.load_all(text, yaml.CSafeLoader)
        if found
    }


if __name__ == "__main__":
    sys.exit(main())
