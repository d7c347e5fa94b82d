"""The forms, the workflow and the pages for contributors name what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from crds.kinds import KINDS

TREE = Path(__file__).parent.parent.parent
GITHUB = TREE / ".github"
FORMS = [GITHUB / "ISSUE_TEMPLATE/bug_report.yml", GITHUB / "ISSUE_TEMPLATE/feature_request.yml"]
PAGES = [
    *(TREE / name for name in ("CONTRIBUTING.md", "RELEASE.md", "SECURITY.md")),
    *(file for file in GITHUB.rglob("*") if file.is_file()),
]


def _texts() -> str:
    return "\n".join(page.read_text() for page in PAGES)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_a_form_is_what_github_takes(form: Path) -> None:
    document: dict[str, Any] = yaml.safe_load(form.read_text())
    assert document.keys() == {"name", "description", "labels", "body"}
    fields = [field for field in document["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"textarea", "input", "dropdown"}
    assert all(field["attributes"]["label"] for field in fields)
    identifiers = [field["id"] for field in fields]
    assert len({*identifiers}) == len(identifiers)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_there_is_no_other_form_and_no_blank_issue() -> None:
    config = GITHUB / "ISSUE_TEMPLATE/config.yml"
    assert {*config.parent.iterdir()} == {*FORMS, config}
    assert yaml.safe_load(config.read_text()) == {"blank_issues_enabled": False}


def test_the_targets_of_make_that_are_named_are_there() -> None:
    named = {*re.findall(r"(?:`|^ *)make ([a-z-]+)", _texts(), re.MULTILINE)}
    targets = {*re.findall(r"^([a-z-]+):", (TREE / "Makefile").read_text(), re.MULTILINE)}
    assert {"lint", "test", "release"} <= named
    assert named <= targets


def test_the_objects_that_kubectl_is_asked_for_are_there() -> None:
    text = _texts()
    kinds = {kind.short_name for kind in KINDS} | {"pods"}
    for names in re.findall(r"kubectl (?:get|describe) ([a-z,]+)[ `]", text):
        assert {*names.split(",")} <= kinds, names
    files = [*TREE.glob("deploy/base/*.yaml"), *TREE.glob("metacontroller/install/*.yaml")]
    objects = [d for file in files for d in yaml.safe_load_all(file.read_text()) if d]
    installed = {
        (d["kind"].lower(), d["metadata"]["name"], d["metadata"]["namespace"])
        for d in objects
        if d["kind"] in {"DaemonSet", "Deployment", "StatefulSet"}
    }
    _, names, namespaces = map(set, zip(*installed, strict=True))
    named = {*re.findall(r"\b(daemonset|deployment|statefulset)/([a-z-]+)", text)}
    assert named
    assert named <= {(kind, name) for kind, name, _ in installed}
    assert {*re.findall(r"-l app\.kubernetes\.io/name=([a-z-]+)", text)} <= names
    assert {*re.findall(r"kubectl .*?-n ([a-z-]+)", text)} == namespaces


def test_the_paths_of_the_repository_that_are_named_are_there() -> None:
    pattern = (
        r"`((?:\.ci|agent|crds|deploy|docs|hooks|locks|tests)/[\w./-]*|[A-Z]+\.md|Dockerfile)`"
    )
    named = {*re.findall(pattern, _texts())}
    assert len(named) > 8
    assert {name for name in named if not (TREE / name).exists()} == set()


def test_every_owner_is_the_one_that_the_release_page_says_to_set() -> None:
    lines = (GITHUB / "CODEOWNERS").read_text().splitlines()
    owners = {line.split()[1] for line in lines if not line.startswith("#")}
    assert all(f"`{owner}`" in (TREE / "RELEASE.md").read_text() for owner in owners)


def test_the_workflow_runs_what_a_submission_runs_with_no_rights_to_write() -> None:
    workflow = yaml.safe_load((GITHUB / "workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    for step in job["steps"]:
        assert "run" in step or re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


def test_the_folders_that_dependabot_watches_have_what_it_updates() -> None:
    files = {"pip": "*.txt", "docker": "Dockerfile", "github-actions": ".github/workflows/*.yml"}
    for update in yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]:
        folder = TREE / update["directory"].strip("/")
        assert any(folder.glob(files[update["package-ecosystem"]]))
