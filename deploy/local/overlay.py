"""What an overlay of deploy/overlays adds to the base, read from its own manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from deploy.local.errors import LocalError

if TYPE_CHECKING:
    from pathlib import Path

BASE = "base"
HOOKS_DEPLOYMENT = "localmodel-hooks"


def names(checkout: Path) -> list[str]:
    """The overlays that there are; the base alone is one of them."""
    folders = (checkout / "deploy/overlays").iterdir()
    return [BASE, *sorted(path.name for path in folders if path.is_dir())]


def check(checkout: Path, name: str) -> None:
    """Raise LocalError unless there is such an overlay."""
    known = names(checkout)
    if name not in known:
        raise LocalError(
            f"there is no overlay {name!r}", todo=f"name one of them: {', '.join(known)}"
        )


def manifest_files(checkout: Path, name: str) -> list[Path]:
    """The manifests that it adds to those of the base."""
    return [
        _folder(checkout, name) / file
        for file in _kustomization(checkout, name).get("resources", ())
        if not file.startswith("..")
    ]


def neighbour_files(checkout: Path, name: str) -> list[Path]:
    """What a cluster for this overlay has beside localmodel, as far as it can be had here."""
    return sorted((checkout / "deploy/local" / name).glob("*.yaml"))


def hooks_environment(checkout: Path, name: str) -> dict[str, str]:
    """What it adds to the environment of the hooks."""
    environment: dict[str, str] = {}
    for patch in _kustomization(checkout, name).get("patches", ()):
        deployment = yaml.safe_load((_folder(checkout, name) / patch["path"]).read_text())
        if deployment["metadata"]["name"] == HOOKS_DEPLOYMENT:
            (container,) = deployment["spec"]["template"]["spec"]["containers"]
            environment |= {entry["name"]: entry["value"] for entry in container["env"]}
    return environment


def _kustomization(checkout: Path, name: str) -> dict[str, Any]:
    if name == BASE:
        return {}
    text = (_folder(checkout, name) / "kustomization.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def _folder(checkout: Path, name: str) -> Path:
    return checkout / "deploy/overlays" / name
