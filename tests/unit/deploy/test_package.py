"""The wheel has one package, with all programs of the image and without the local cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT

DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()
# The sources of the image: the `COPY` lines of the first stage.
COPIED = [
    name
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    for name in line.split()
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of the image, built only from the files that the Dockerfile copies."""
    folder = tmp_path_factory.mktemp("image")
    for name in COPIED:
        target = folder / "src" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, target, symlinks=True)
        else:
            shutil.copy(CHECKOUT / name, target)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"],
        cwd=folder / "src",
        check=True,
        capture_output=True,
    )
    (built,) = (folder / "dist").iterdir()
    return zipfile.ZipFile(built)


def test_only_one_name_lies_at_the_top_of_site_packages(wheel: zipfile.ZipFile) -> None:
    tops = {Path(name).parts[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"localmodel"}


def test_the_package_has_every_module_that_is_shipped(wheel: zipfile.ZipFile) -> None:
    links = [link for link in (CHECKOUT / "localmodel").iterdir() if link.is_symlink()]
    shipped = {
        f"localmodel/{link.name}/{file.relative_to(link.resolve())}"
        for link in links
        for file in link.resolve().rglob("*.py")
    }
    found = {name for name in wheel.namelist() if name.endswith(".py")}
    assert found == shipped | {"localmodel/__init__.py"}
    assert {"agent", "crds", "hooks", "takeover"} <= {link.name for link in links}


def test_every_program_is_a_module_of_the_package(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    programs = re.findall(r"^\S+ = ([\w.]+):\w+$", wheel.read(entry_points).decode(), re.MULTILINE)
    # The program of the hooks is gunicorn, whose argument is a module.
    programs += re.findall(r"localmodel\.[\w.]+", DOCKERFILE)
    assert len(programs) >= 4
    for program in programs:
        assert f"{program.replace('.', '/')}.py" in wheel.namelist()
