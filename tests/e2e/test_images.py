"""The images, built by buildah as root: on a base of Debian's packages, as no registry is needed.

The base is made once, and kept in .build/images.
"""

from __future__ import annotations

import configparser
import fcntl
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import pytest

from crds.version import __version__
from deploy.image import build, debian_base
from deploy.image.contents import IMAGES
from deploy.local.layout import BUILD
from deploy.local.ports import free_ports
from tests.contract.servers_s3 import Gateway, s3_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.xdist_group("images"),
    pytest.mark.timeout(1200),  # installs a Debian, and builds two images
]
STORAGE = BUILD / "images"
# Bytes of all files of an image, uncompressed.
LIMITS = {"hooks": 120e6, "agent": 250e6}
START_SECONDS = 60.0
# Settings of pip that say where packages come from. Others name paths of this machine.
PIP_SETTINGS = {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout"}


@dataclass(frozen=True)
class Built:
    """A container of an image: its root directory here, and the image's settings."""

    target: str
    container: str
    root: Path
    config: dict[str, Any]

    def command(
        self, *arguments: str, user: str = "", env: dict[str, str] | None = None
    ) -> list[str]:
        """The command that runs a program in the container, on this machine's network."""
        options = [f"--user={user}"] if user else []
        options += [f"--env={name}={value}" for name, value in (env or {}).items()]
        return ["buildah", "run", *options, self.container, "--", *arguments]

    def run(self, *arguments: str, user: str = "", env: dict[str, str] | None = None) -> str:
        """What a program in the container prints."""
        command = self.command(*arguments, user=user, env=env)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def site(self) -> Path:
        (site,) = self.root.glob("opt/localmodel/lib/python3.*/site-packages")
        return site


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Built]]:
    """Both images, built from the checkout."""
    if os.geteuid() != 0 or shutil.which("buildah") is None:
        pytest.skip("images are built by buildah, as root: run `make packages` as root")
    folder = tmp_path_factory.mktemp("images")
    STORAGE.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, (STORAGE / "lock").open("w") as lock:
        # Other checkouts' tests may share .build.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, value in _settings(folder).items():
            patch.setenv(name, value)
        _ensure_base()
        options = ["--builder", "buildah", "--base", debian_base.NAME]
        # The images share their first stages.
        assert build.main([*options, "--", "--layers", *_secrets(folder)]) == 0
        with _container("hooks") as hooks, _container("agent") as agent:
            yield {"hooks": hooks, "agent": agent}
        for target in IMAGES:
            _buildah("rmi", "--force", build.name_of(target, ""))
        _buildah("rmi", "--prune", "--force")


def _settings(folder: Path) -> dict[str, str]:
    """The environment of buildah: its own storage, and no rights that a container lacks."""
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = ""\ngraphroot = "{STORAGE}"\nrunroot = "{folder}/run"\n'
    )
    return {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "BUILDAH_ISOLATION": "chroot",
    }


def _secrets(folder: Path) -> list[str]:
    """Options of the build by which pip reaches its index as on this machine."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(
        ["/etc/pip.conf", Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf"]
    )
    found = dict(parser["global"]) if parser.has_section("global") else {}
    given = {name: os.environ.get(f"PIP_{name.upper().replace('-', '_')}") for name in PIP_SETTINGS}
    settings = {**found, **{name: value for name, value in given.items() if value}}
    lines = [f"{name} = {settings[name]}" for name in sorted(settings.keys() & PIP_SETTINGS)]
    options = ["--secret", f"id=pip.conf,src={folder}/pip.conf"]
    authorities = os.environ.get("PIP_CERT") or settings.get("cert")
    if authorities:
        lines.append("cert = /run/secrets/ca.crt")
        options += ["--secret", f"id=ca.crt,src={authorities}"]
    (folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    return options


def _ensure_base() -> None:
    if _buildah("images", "--quiet", debian_base.NAME, check=False).strip():
        return
    if shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("the base is made by debootstrap: run `make packages` as root")
    assert debian_base.main(["--builder", "buildah"]) == 0


@contextmanager
def _container(target: str) -> Iterator[Built]:
    name = build.name_of(target, "")
    container = _buildah("from", "--pull-never", name).strip()
    try:
        root = Path(_buildah("mount", container).strip())
        inspected = json.loads(_buildah("inspect", "--type=image", name))
        yield Built(target, container, root, inspected["OCIv1"]["config"])
    finally:
        _buildah("rm", container)


def _buildah(*arguments: str, check: bool = True) -> str:
    command = ["buildah", *arguments]
    return subprocess.run(command, check=check, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.parametrize("target", IMAGES)
def test_an_image_is_small(images: dict[str, Built], target: str) -> None:
    files = [file for file in images[target].root.rglob("*") if not file.is_symlink()]
    assert sum(file.stat().st_size for file in files if file.is_file()) < LIMITS[target]


@pytest.mark.parametrize("target", IMAGES)
def test_an_image_has_its_labels_and_its_user(images: dict[str, Built], target: str) -> None:
    config = images[target].config
    assert config["User"] == "65532:65532"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == IMAGES[target].name
    assert labels["org.opencontainers.image.version"] == __version__
    assert (images[target].root / "opt/localmodel/bin" / config["Cmd"][0]).exists()


@pytest.mark.parametrize("target", IMAGES)
def test_an_image_has_no_shell_no_installer_and_nothing_to_compile(
    images: dict[str, Built], target: str
) -> None:
    root, site = images[target].root, images[target].site
    found = {
        file.name for file in root.rglob("*") if not file.is_dir() and os.access(file, os.X_OK)
    }
    assert not found & {"sh", "bash", "dash", "pip", "pip3", "apt", "dpkg", "perl"}
    assert not [*site.glob("pip*")]
    modules = [file for file in site.rglob("*.py") if "-" not in file.stem]
    assert len(modules) > 300
    compiled = {re.sub(r"\.cpython-\d+\.pyc$", "", str(f)) for f in site.rglob("*.pyc")}
    missing = [f for f in modules if str(f.parent / "__pycache__" / f.stem) not in compiled]
    assert not missing
    owners = {(file.lstat().st_uid, file.lstat().st_mode & 0o022) for file in site.rglob("*.py")}
    assert owners == {(0, 0)}


@pytest.mark.parametrize("target", IMAGES)
def test_the_bill_of_materials_is_what_the_image_has(images: dict[str, Built], target: str) -> None:
    image = images[target]
    bill = json.loads((image.root / f"usr/share/sbom/{IMAGES[target].name}.cdx.json").read_text())
    purls = {component["purl"] for component in bill["components"]}
    folders = [path.stem for path in image.site.glob("*.dist-info")]
    installed = {
        f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        for name, _, version in (folder.rpartition("-") for folder in folders)
    }
    assert {purl for purl in purls if "pypi" in purl} == installed - {
        f"pkg:pypi/localmodel@{__version__}"
    }
    names = {purl.partition("@")[0] for purl in purls - installed}
    assert {"pkg:deb/debian/libc6", "pkg:deb/debian/ca-certificates"} <= names
    assert {"pkg:deb/debian/libssl3", "pkg:generic/python"} <= names


def test_the_hooks_of_the_image_answer(images: dict[str, Built], tmp_path: Path) -> None:
    hooks = images["hooks"]
    (port,) = free_ports(1)
    env = {"GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            hooks.command(*hooks.config["Cmd"], env=env),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
                    assert answer.status == 200
                break
            except URLError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.1)
        # The workers, too, are nobody on this machine.
        assert {status["Uid"].split()[0] for status in _processes_of(port)} == {"65532"}
    finally:
        os.killpg(process.pid, 15)
        process.wait(START_SECONDS)


def _processes_of(port: int) -> Iterator[dict[str, str]]:
    """The status of each process whose environment names the port."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"--bind 127.0.0.1:{port}" not in environment.read_text(errors="replace"):
                continue
            lines = environment.with_name("status").read_text().splitlines()
        except OSError:
            continue
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if "gunicorn" in status["Name"] or "python" in status["Name"]:
            yield status


def test_the_programs_of_the_agent_start(images: dict[str, Built]) -> None:
    for program in IMAGES["agent"].programs:
        assert images["agent"].run(program, "--version") == f"{program} {__version__}\n"
    # As its pod does.
    told = images["agent"].run("localmodel-agent", "--version", user="0:0")
    assert told == f"localmodel-agent {__version__}\n"


def test_the_agent_of_the_image_downloads_from_s3(images: dict[str, Built], tmp_path: Path) -> None:
    """Botocore has the data of the services that are kept, and its extension can be loaded."""
    content = os.urandom(3 << 20)
    with s3_storage(tmp_path) as url:
        gateway = Gateway(url)
        uri = gateway.put({"model.bin": content, "sub/config.json": b"{}"})
        env = {**dict(gateway.good.items), "AWS_EC2_METADATA_DISABLED": "true"}
        images["agent"].run("localmodel-agent", "pull", uri, "/tmp/model", env=env)
    assert (images["agent"].root / "tmp/model/model.bin").read_bytes() == content


def test_a_certificate_of_a_known_authority_is_accepted(images: dict[str, Built]) -> None:
    code = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(images["agent"].run("python", "-c", code)) > 100
