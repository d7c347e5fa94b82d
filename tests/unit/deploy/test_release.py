"""All files have the same version, and a release changes all of them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from agent.main import main as agent_main
from crds.version import __version__
from deploy.local.cli import main as local_main
from deploy.release import CHANGELOG, PLACES, TREE, ReleaseError, main, released, versions_in
from deploy.takeover.main import main as takeover_main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNRELEASED = "# Changelog\n\n## Unreleased\n\n### Added\n\n- New.\n\n## 0.0.1 - 2025-01-02\n"
# A version of the image in any file, which a release has to change.
IMAGES = re.compile(r"(?:registry\.example\.com/localmodel[\w${},-]*:|newTag: )\S+")


@pytest.fixture
def texts() -> dict[str, str]:
    return {name: (TREE / name).read_text() for name in PLACES} | {CHANGELOG: UNRELEASED}


@pytest.fixture
def tree(tmp_path: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", PLACES)
def test_every_place_has_the_version(name: str) -> None:
    assert versions_in(name, (TREE / name).read_text()) == {__version__}


def test_no_other_place_has_a_version() -> None:
    globs = ("*.md", "docs/*.md", "deploy/**/*.yaml", "metacontroller/**/*.yaml")
    files = [file for glob in globs for file in TREE.glob(glob)]
    assert len(files) > 20
    found = {str(file.relative_to(TREE)) for file in files if IMAGES.search(file.read_text())}
    # `make generate` renders the files of the chart anew.
    found -= {path for path in found if path.startswith("deploy/chart/files/")}
    assert found <= {*PLACES}


def test_the_changelog_has_a_place_for_what_is_unreleased() -> None:
    titles = re.findall(r"^## (.+)", (TREE / CHANGELOG).read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased"
    assert len({*titles}) == len(titles)


def test_the_package_has_the_version_of_its_source() -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"] == {"path": "crds/version.py"}


def test_a_release_changes_every_place_and_dates_the_changelog(tree: Path) -> None:
    assert main(["7.0.1"], tree) == 0
    for name in PLACES:
        assert versions_in(name, (tree / name).read_text()) == {"7.0.1"}
    head, rest = UNRELEASED.split("\n### Added")
    dated = rf"{head}\n## 7\.0\.1 - \d{{4}}-\d\d-\d\d\n\n### Added{rest}"
    assert re.fullmatch(dated, (tree / CHANGELOG).read_text())


def test_the_version_that_was_never_released_can_be(texts: dict[str, str]) -> None:
    new = released(texts, __version__, "2026-01-02")
    assert f"## {__version__} - 2026-01-02\n" in new.pop(CHANGELOG)
    assert new == {name: texts[name] for name in PLACES}


def test_a_release_twice_is_refused(texts: dict[str, str]) -> None:
    once = released(texts, "7.0.1", "2026-01-02")
    with pytest.raises(ReleaseError, match="no entry below"):
        released(once, "7.0.2", "2026-01-03")
    once[CHANGELOG] = once[CHANGELOG].replace("## Unreleased\n", "## Unreleased\n\n- More.\n")
    with pytest.raises(ReleaseError, match=r"has 7\.0\.1 already"):
        released(once, "7.0.1", "2026-01-03")


@pytest.mark.parametrize(
    ("version", "why"),
    [("v7", "not a version"), ("7.0", "not a version"), ("0.0.9", "is older than")],
)
def test_a_version_that_is_not_newer_is_refused(
    version: str, why: str, tree: Path, texts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([version], tree)
    assert exit_.value.code == 2
    assert why in capsys.readouterr().err
    assert texts == {name: (tree / name).read_text() for name in texts}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("instead", ["9.9.9", "latest"])
def test_places_that_differ_are_named(name: str, instead: str, texts: dict[str, str]) -> None:
    texts[name] = texts[name].replace(f"{PLACES[name]}{__version__}", f"{PLACES[name]}{instead}")
    with pytest.raises(ReleaseError, match="different versions") as refused:
        released(texts, "10.0.0", "2026-01-02")
    assert f"{name}: {instead if instead != 'latest' else 'none'}" in str(refused.value)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (agent_main, "localmodel-agent"),
        (takeover_main, "localmodel-takeover"),
        (local_main, "localmodel"),
    ],
)
def test_each_program_prints_its_version(
    command: Callable[[list[str]], int], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        command(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"{name} {__version__}\n"


def test_a_program_of_a_checkout_that_is_not_installed_prints_its_version() -> None:
    told = subprocess.check_output(
        [sys.executable, "-m", "agent.main", "--version"], cwd=TREE, text=True
    )
    assert told == f"localmodel-agent {__version__}\n"
