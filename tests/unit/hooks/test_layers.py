"""`make lint` judges a module of the hooks that nobody has named in pyproject.toml."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from localmodel import crds, hooks

TREE = Path(__file__).parent.parent.parent.parent
HOOKS = Path(hooks.__file__).parent.relative_to(TREE)
CRDS = Path(crds.__file__).parent.relative_to(TREE)
LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree with the hooks and the types in it; the other packages are empty."""
    config = (TREE / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(config)
    for package in tomllib.loads(config)["tool"]["importlinter"]["root_packages"]:
        folder = tmp_path / package.replace(".", "/")
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    for folder in (HOOKS, CRDS):
        ignore = shutil.ignore_patterns("__pycache__", "manifests")
        shutil.copytree(TREE / folder, tmp_path / folder, ignore=ignore, dirs_exist_ok=True)
    return tmp_path


def _lint(tree: Path) -> str:
    """The findings of `lint-imports` for the contracts of the hooks; empty: none."""
    contracts = ("--contract=hooks-io", "--contract=hooks-layers")
    done = subprocess.run(
        [LINT, "--no-cache", *contracts], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    assert "Contracts: " in done.stdout, done.stdout
    return done.stdout if done.returncode else ""


def test_the_hooks_as_they_are_pass(tree: Path) -> None:
    assert _lint(tree) == ""


@pytest.mark.parametrize("imported", ["socket", "flask", "os", "requests"])
def test_a_new_module_must_not_do_io(tree: Path, imported: str) -> None:
    (tree / HOOKS / "tomorrow.py").write_text(f"import {imported}\n")
    assert f"{hooks.__name__}.tomorrow -> {imported}" in _lint(tree)


def test_a_new_module_needs_a_layer(tree: Path) -> None:
    (tree / HOOKS / "tomorrow.py").touch()
    assert "tomorrow" in _lint(tree)


@pytest.mark.parametrize(
    ("module", "imported"), [("naming", "caches"), ("caches", "nodes"), ("plan", "admission")]
)
def test_a_helper_must_not_import_what_calls_it(tree: Path, module: str, imported: str) -> None:
    file = tree / HOOKS / f"{module}.py"
    file.write_text(f"{file.read_text()}\nimport {hooks.__name__}.{imported}\n")
    assert f"{hooks.__name__}.{module} -> {hooks.__name__}.{imported}" in _lint(tree)
