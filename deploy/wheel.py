"""Makes the wheel: the folders that are shipped become the subpackages of one package, localmodel.

The folders of the repository are top-level packages, whose names (agent, hooks, …) would be too
common in site-packages. Hatchling calls this hook, and it rewrites their imports for the wheel.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "localmodel"
# Each folder that is shipped, and the name of its subpackage.
SHIPPED = {
    "agent": "agent",
    "crds": "crds",
    "hooks": "hooks",
    "deploy/kube": "kube",
    "deploy/kubectl": "kubectl",
    "deploy/takeover": "takeover",
}
_INIT = '"""Keeps model files on the disks of the nodes that will serve them."""\n'
_MODULES = {folder.replace("/", "."): name for folder, name in SHIPPED.items()}
_NAMES = "|".join(re.escape(module) for module in _MODULES)
# `from agent.x import y`. Other forms bind a top-level name, so that a rewritten import would
# bind another one.
_FROM = re.compile(rf"^(\s*from )({_NAMES})(?=[. ])", re.MULTILINE)
_OTHER = re.compile(rf"^\s*(?:import (?:{_NAMES})\b|from deploy import)", re.MULTILINE)


class ImportFormError(Exception):
    """A module imports a shipped package in a form that cannot be rewritten."""


def rewritten(source: str, path: str) -> str:
    """The text of a module as a part of the package. Raises ImportFormError."""
    other = _OTHER.search(source)
    if other is not None:
        raise ImportFormError(
            f"{path}: {other[0].strip()!r} cannot be rewritten for the wheel: write it as "
            "`from PACKAGE.MODULE import NAME`"
        )
    return _FROM.sub(lambda found: f"{found[1]}{PACKAGE}.{_MODULES[found[2]]}", source)


def files_of(root: Path) -> Iterator[tuple[Path, Path]]:
    """Each file that is shipped, and its path in the package."""
    for folder, name in SHIPPED.items():
        for file in sorted((root / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file, Path(name) / file.relative_to(root / folder)


def make_package(root: Path, package: Path) -> None:
    """Write the package into a new folder. Raises ImportFormError and OSError."""
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_INIT)
    for file, path in files_of(root):
        target = package / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".py":
            target.write_text(rewritten(file.read_text(), str(file.relative_to(root))))
        else:
            shutil.copyfile(file, target)


class OnePackage(BuildHookInterface):  # type: ignore[type-arg,unused-ignore]
    """The build hook of hatchling that puts the package into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the package, and have it included."""
        del version
        package = self._folder / PACKAGE
        shutil.rmtree(self._folder, ignore_errors=True)
        make_package(Path(self.root), package)
        build_data["force_include"][str(package)] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete the package, which is in the wheel now."""
        del version, build_data, artifact_path
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        return Path(self.directory) / ".package"
