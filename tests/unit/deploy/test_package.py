"""The wheel: one package with all that the image runs, and nothing of the local cluster."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT
from deploy.wheel import PACKAGE, SHIPPED, ImportFormError, files_of, rewritten

DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()
# What the image is built from: `COPY what where` of its first stage.
COPIED = [
    name
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    for name in line.split()
]
# The programs of the wheel are started in Python processes.
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what the Dockerfile copies and no more, and unpacked as pip does."""
    folder = tmp_path_factory.mktemp("image")
    for name in COPIED:
        target = folder / "src" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, target)
        else:
            shutil.copy(CHECKOUT / name, target)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"],
        cwd=folder / "src",
        check=True,
        capture_output=True,
    )
    (built,) = (folder / "dist").iterdir()
    zipfile.ZipFile(built).extractall(folder / "site")
    return folder / "site"


def run(site: Path, code: str) -> str:
    """Run Python code with the wheel's package, away from the checkout."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=site.parent,
        env=os.environ | {"PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_only_one_name_lies_at_the_top_of_site_packages(site: Path) -> None:
    tops = {path.name for path in site.iterdir()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {PACKAGE}


def test_the_package_has_every_file_that_is_shipped(site: Path) -> None:
    found = {path.relative_to(site / PACKAGE) for path in (site / PACKAGE).rglob("*.*")}
    assert found == {path for _, path in files_of(CHECKOUT)} | {Path("__init__.py")}
    assert {path.parts[0] for path in found} == {*SHIPPED.values(), "__init__.py"}


def test_every_module_imports_the_package_and_no_folder_of_the_repository(site: Path) -> None:
    for file in (site / PACKAGE).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            tops = {name.split(".")[0] for name in names}
            assert not tops & {"agent", "crds", "deploy", "hooks"}, file


def test_every_module_can_be_imported(site: Path) -> None:
    modules = [
        ".".join(file.relative_to(site).with_suffix("").parts).removesuffix(".__init__")
        for file in (site / PACKAGE).rglob("*.py")
        # It sets the environment of a gunicorn.
        if file.stem != "gunicorn_conf"
    ]
    run(site, "import importlib\n" + "\n".join(f"importlib.import_module({m!r})" for m in modules))


@pytest.mark.parametrize(
    "program",
    ["kubectl-localmodel", "localmodel-agent", "localmodel-takeover", "localmodel-uninstall"],
)
def test_every_program_starts(site: Path, program: str) -> None:
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    line = re.search(rf"^{program} = ([\w.]+):(\w+)$", entry_points.read_text(), re.MULTILINE)
    assert line is not None
    code = f"import sys; sys.argv = [{program!r}, '--version']; from {line[1]} import {line[2]}"
    assert run(site, f"{code}; {line[2]}()").startswith(program)


def test_the_hooks_of_the_image_answer(site: Path) -> None:
    command = re.search(r'"(localmodel[\w.]+):(\w+)\(\)"', DOCKERFILE)
    assert command is not None
    manifest = (CHECKOUT / "deploy/base/hooks.yaml").read_text()
    assert command[0] in manifest
    code = f"from {command[1]} import {command[2]}; app = {command[2]}()"
    assert run(site, f"{code}; print(app.test_client().get('/healthz').status)") == "200 OK\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from agent.x import y", "from localmodel.agent.x import y"),
        ("    from deploy.kube.kinds import Kind", "    from localmodel.kube.kinds import Kind"),
        ("from hooks import reasons", "from localmodel.hooks import reasons"),
        ("from deploy.takeover import names", "from localmodel.takeover import names"),
        ("from agents import x\nimport agency", "from agents import x\nimport agency"),
        ("hooks = agent.x", "hooks = agent.x"),
    ],
)
def test_an_import_is_rewritten(source: str, expected: str) -> None:
    assert rewritten(source, "x.py") == expected


@pytest.mark.parametrize(
    "source", ["import agent.x", "import hooks as h", "from deploy import kube"]
)
def test_an_import_that_cannot_be_rewritten_is_named(source: str) -> None:
    with pytest.raises(ImportFormError, match=f"agent/x.py: '{source[:6]}"):
        rewritten(f"import os\n{source}\n", "agent/x.py")


def test_the_page_of_the_plugin_is_shipped(site: Path) -> None:
    page = run(
        site,
        "from localmodel.kubectl.ui.feed import Feed\n"
        "from localmodel.kubectl.ui.server import Server\n"
        "server = Server(Feed('test'), dict, 0)\n"
        "print(*sorted(server.page))\n"
        "server.server_close()",
    )
    assert {"index.html", "app.js", "style.css", "icon.svg"} <= set(page.split())
