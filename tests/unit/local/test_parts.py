"""The parts that each command builds. Nothing is built in these tests."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from deploy.local import build, cli, demo
from deploy.local.errors import LocalError
from deploy.local.layout import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.local.console import Console

ALL = ["kube", "versitygw", "model", "fake-gcs", "azurite", "kserve-sdk", "helm"]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the parts that a command built, in order."""
    names: list[str] = []

    def recorder(name: str) -> object:
        return lambda _: names.append(name)

    monkeypatch.setattr(build, "PARTS", {name: recorder(name) for name in build.PARTS})
    return names


@pytest.mark.parametrize(
    ("arguments", "parts"), [([], ALL), (["azurite", "versitygw"], ["azurite", "versitygw"])]
)
def test_build_builds_what_it_names_or_all(
    built: list[str], arguments: list[str], parts: list[str]
) -> None:
    assert cli.main(["build", *arguments]) == 0
    assert built == parts


def test_build_lists_the_parts_when_it_knows_none_of_that_name(
    built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["build", "kube", "gcs"]) == 1
    told = capsys.readouterr().err
    assert "error: there is no part gcs" in told
    assert f"what to do: name some of {', '.join(ALL)}" in told
    assert not built


def test_the_demo_builds_only_what_it_runs(
    built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_model(_: Console) -> Path:
        raise LocalError("no model", todo="stop before a cluster starts")

    monkeypatch.setattr(build, "ensure_model", no_model)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert demo.main([]) == 1
    assert built == ["kube", "versitygw", "model"]


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("build", [""]),
        ("test", [""]),
        ("test-unit", ["kube versitygw fake-gcs azurite helm"]),
        ("demo", []),
        ("up", []),
        ("faults", []),
        ("bench-control", []),
        ("bench-download", []),
    ],
)
def test_only_tests_have_make_build_more_than_their_program_does(
    target: str, parts: list[str]
) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    dry = subprocess.run(
        ["make", "--dry-run", target],
        cwd=CHECKOUT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    _, *builds = dry.stdout.replace("\n", " \n").split("-m deploy.local build")
    assert [text.split("\n")[0].strip() for text in builds] == parts
