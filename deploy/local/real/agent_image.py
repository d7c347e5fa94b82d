"""The image of the agent, made of this checkout without a base, which the Dockerfile needs.

Its layers: busybox; this Python with what deploy/image/contents.py puts into the agent's image; the
code of the checkout, packed as in the wheel.
"""

from __future__ import annotations

import compileall
import importlib.util
import py_compile
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.image.contents import HOME, IMAGES, installed, libraries, python, standard_library
from deploy.local.layout import BUILD, CHECKOUT
from deploy.local.real import images
from deploy.wheel import PACKAGE, make_package

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "localmodel.local/localmodel:1"
FOLDER = BUILD / "agent-image"
_LOCK = CHECKOUT / IMAGES["agent"].lock
_SCRIPT = """\
#!{python}
import sys

from localmodel.agent.main import main

sys.exit(main())
"""


def write(archive: Path, busybox: Path) -> None:
    """Write the image of the checkout. Its layer of packages is kept for later images."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name)
        images.write_busybox_layer(busybox, folder / "busybox")
        images.write_layer(folder / "code", _code(folder / "package"))
        environment = {
            "PATH": f"{HOME}/bin:/bin",
            "PYTHONPATH": f"{HOME}/lib",
            "PYTHONUNBUFFERED": "1",
        }
        config = {"Env": [f"{key}={value}" for key, value in environment.items()]}
        layers = [folder / "busybox", _packages_layer(folder), folder / "code"]
        images.write(archive, NAME, layers, config)


def _packages_layer(folder: Path) -> Path:
    """The layer with Python and the packages, written unless it is up to date."""
    layer, stamp = FOLDER / "packages.tar", FOLDER / "packages.stamp"
    recipe = (CHECKOUT / "deploy" / "image" / "contents.py").read_text()
    wanted = f"{sys.version}\n{python()}\n{_LOCK.read_text()}\n{recipe}"
    if not layer.exists() or not stamp.exists() or stamp.read_text() != wanted:
        draft = folder / "packages"
        images.write_layer(draft, sorted(set(_packages())))
        stamp.unlink(missing_ok=True)
        draft.replace(layer)
        stamp.write_text(wanted)
    return layer


def _packages() -> Iterator[tuple[str, Path]]:
    program = python()
    programs = [program]
    yield str(program), program
    packages = ((f"{HOME}/lib/{path}", file) for path, file in installed(_LOCK.read_text()))
    for path, file in (*standard_library(), *packages):
        yield path, file
        if path.endswith(".py"):
            cached = Path(importlib.util.cache_from_source(str(file)))
            if cached.exists():
                yield importlib.util.cache_from_source(path), cached
        elif ".so" in file.name:
            programs.append(file)
    yield from ((path, Path(path)) for path in libraries(programs))


def _code(folder: Path) -> Iterator[tuple[str, Path]]:
    package = folder / PACKAGE
    make_package(CHECKOUT, package)
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(package, quiet=1, invalidation_mode=unchecked)
    for file in package.rglob("*"):
        if file.is_file():
            yield f"{HOME}/lib/{file.relative_to(folder)}", file
    script = folder / "localmodel-agent"
    script.write_text(_SCRIPT.format(python=python()))
    script.chmod(0o755)
    yield f"{HOME}/bin/localmodel-agent", script
