"""The image of localmodel, made of this checkout without a registry, which Dockerfile needs.

Its layers: busybox; this Python with the packages of locks/runtime.txt, and the libraries of the
machine that they need; the code of the checkout, packed as in the wheel.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import importlib.util
import os
import py_compile
import re
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.layout import BUILD, CHECKOUT
from deploy.local.real import images
from deploy.wheel import PACKAGE, make_package

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "localmodel.local/localmodel:1"
FOLDER = BUILD / "agent-image"
_HOME = "/opt/localmodel"
# Parts of Python's library that no server uses, or that are not Python's own.
_LEFT_OUT = re.compile(r"(site-packages|dist-packages|test|idlelib|tkinter|ensurepip|config-.*)")
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
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
            "PATH": f"{_HOME}/bin:/bin",
            "PYTHONPATH": f"{_HOME}/lib",
            "PYTHONUNBUFFERED": "1",
        }
        config = {"Env": [f"{key}={value}" for key, value in environment.items()]}
        layers = [folder / "busybox", _packages_layer(folder), folder / "code"]
        images.write(archive, NAME, layers, config)


def _packages_layer(folder: Path) -> Path:
    """The layer with Python and the packages, written unless it is up to date."""
    layer, stamp = FOLDER / "packages.tar", FOLDER / "packages.stamp"
    wanted = f"{sys.version}\n{_python()}\n{(CHECKOUT / 'locks' / 'runtime.txt').read_text()}"
    if not layer.exists() or not stamp.exists() or stamp.read_text() != wanted:
        draft = folder / "packages"
        images.write_layer(draft, sorted(set(_packages())))
        stamp.unlink(missing_ok=True)
        draft.replace(layer)
        stamp.write_text(wanted)
    return layer


def _python() -> Path:
    return Path(os.path.realpath(sys.executable))


def _packages() -> Iterator[tuple[str, Path]]:
    python = _python()
    programs = [python]
    yield str(python), python
    for path, file in (*_standard_library(), *_installed()):
        yield path, file
        if path.endswith(".py"):
            cached = Path(importlib.util.cache_from_source(str(file)))
            if cached.exists():
                yield importlib.util.cache_from_source(path), cached
        elif ".so" in file.name:
            programs.append(file)
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    site = sysconfig.get_path("purelib")
    for library in set(_LIBRARY.findall(listed.stdout)):
        # Libraries that a package brings are among its files.
        if not library.startswith(site):
            yield library, Path(library)


def _standard_library() -> Iterator[tuple[str, Path]]:
    top = Path(sysconfig.get_path("stdlib"))
    for file in top.rglob("*"):
        parts = file.relative_to(top).parts
        if file.is_file() and file.suffix != ".pyc" and not _LEFT_OUT.fullmatch(parts[0]):
            yield str(file), file


def _installed() -> Iterator[tuple[str, Path]]:
    site = Path(sysconfig.get_path("purelib"))
    lock = (CHECKOUT / "locks" / "runtime.txt").read_text()
    for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE):
        # The lock also has packages of other systems.
        with suppress(importlib.metadata.PackageNotFoundError):
            for file in importlib.metadata.distribution(name).files or ():
                located = Path(str(file.locate()))
                if file.parts[0] != ".." and file.suffix != ".pyc" and located.is_file():
                    yield f"{_HOME}/lib/{located.relative_to(site)}", located


def _code(folder: Path) -> Iterator[tuple[str, Path]]:
    package = folder / PACKAGE
    make_package(CHECKOUT, package)
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(package, quiet=1, invalidation_mode=unchecked)
    for file in package.rglob("*"):
        if file.is_file():
            yield f"{_HOME}/lib/{file.relative_to(folder)}", file
    script = folder / "localmodel-agent"
    script.write_text(_SCRIPT.format(python=_python()))
    script.chmod(0o755)
    yield f"{_HOME}/bin/localmodel-agent", script
