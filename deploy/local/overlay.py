"""The manifests and settings that an overlay of deploy/overlays adds to the base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from deploy.local.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE = "base"
STANDALONE = "standalone"
HOOKS = "localmodel-hooks"
AGENT = "localmodel-agent"
VOLUMES = "LOCALMODEL_VOLUMES"


def names(checkout: Path) -> list[str]:
    """The names of the overlays, and `base` for the base alone."""
    folders = (checkout / "deploy/overlays").iterdir()
    return [BASE, *sorted(path.name for path in folders if path.is_dir())]


def check(checkout: Path, name: str) -> None:
    """Raise LocalError if there is no overlay of this name."""
    known = names(checkout)
    if name not in known:
        raise LocalError(
            f"there is no overlay {name!r}", todo=f"name one of them: {', '.join(known)}"
        )


def manifest_files(checkout: Path, name: str) -> list[Path]:
    """The manifests that an overlay adds to the base, in their order."""
    return [] if name == BASE else list(_files(_folder(checkout, name), checkout / "deploy/base"))


def _files(folder: Path, base: Path) -> Iterator[Path]:
    for resource in _kustomization(folder)["resources"]:
        path = (folder / resource).resolve()
        if path.is_dir() and path != base.resolve():
            yield from _files(path, base)
        elif path.is_file():
            yield path


def pod_policy_files(checkout: Path) -> list[Path]:
    """The manifests of the policies by which pods get models by name, beside any overlay."""
    return list(_files(checkout / "deploy/pods", checkout / "deploy/base"))


def neighbour_files(checkout: Path, name: str) -> list[Path]:
    """Manifests of what an overlay expects beside localmodel, such as KServe's CRDs."""
    return sorted((checkout / "deploy/local" / name).glob("*.yaml"))


def hooks_environment(checkout: Path, name: str) -> dict[str, str]:
    """The variables of the hooks in the base, with those of an overlay."""
    (deployment,) = (
        one
        for one in yaml.safe_load_all((checkout / "deploy/base/hooks.yaml").read_text())
        if one["kind"] == "Deployment"
    )
    return _variables(deployment) | _environment(checkout, name, HOOKS)


def agents_environment(checkout: Path, name: str) -> dict[str, str]:
    """What volumes show by the base, and the variables that an overlay adds for the agents."""
    base = yaml.safe_load((checkout / "deploy/base/agent.yaml").read_text())
    (container,) = base["spec"]["template"]["spec"]["containers"]
    shown = {one["name"]: one["value"] for one in container["env"] if one["name"] == VOLUMES}
    return shown | _environment(checkout, name, AGENT)


def _environment(checkout: Path, name: str, workload: str) -> dict[str, str]:
    environment: dict[str, str] = {}
    folder = _folder(checkout, name)
    patches = () if name == BASE else _kustomization(folder).get("patches", ())
    for patch in patches:
        patched = yaml.safe_load((folder / patch["path"]).read_text())
        if patched["metadata"]["name"] == workload:
            environment |= _variables(patched)
    return environment


def _variables(workload: dict[str, Any]) -> dict[str, str]:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def _kustomization(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return found


def _folder(checkout: Path, name: str) -> Path:
    return checkout / "deploy/overlays" / name
