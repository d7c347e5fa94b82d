"""The images: what the Dockerfile says, and that each lock has what its programs import."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from packaging.requirements import Requirement

from crds.version import __version__
from deploy.image import build, builder, sbom
from deploy.image.builder import BuilderError
from deploy.image.contents import IMAGES, installed, left_out, standard_library
from deploy.local.layout import CHECKOUT
from deploy.wheel import SHIPPED, make_package

if TYPE_CHECKING:
    from pathlib import Path

DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()
# The programs are started in Python processes.
pytestmark = pytest.mark.timeout(60)
# The instructions of each stage, by its name, with continued lines joined.
STAGES = {
    name: (base, rest)
    for base, name, rest in re.findall(
        r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)",
        DOCKERFILE.replace("\\\n", ""),
        flags=re.DOTALL | re.MULTILINE,
    )
}


def test_all_is_made_from_one_base_that_is_pinned() -> None:
    assert len(STAGES) == len(re.findall(r"^FROM", DOCKERFILE, re.MULTILINE))
    bases = {name: base for name, (base, _) in STAGES.items()}
    # A literal, which Dependabot updates; BASE names another one.
    assert re.fullmatch(r"python:3\.11-slim@sha256:[0-9a-f]{64}", bases["python"])
    assert "\nARG BASE=python\n" in DOCKERFILE.partition("FROM")[0]
    assert {*bases.values()} - {bases["python"]} == {"${BASE}", "build", "scratch", "image"}
    assert {bases["image"], bases["build"]} == {"scratch", "${BASE}"}
    assert {name for name, base in bases.items() if base == "image"} == {*IMAGES}


@pytest.mark.parametrize("target", IMAGES)
def test_an_image_has_only_its_root_directory_and_its_own_lock(target: str) -> None:
    _, steps = STAGES[target]
    assert re.findall(r"^(?:COPY|ADD|RUN) .*", steps, re.MULTILINE) == [
        f"COPY --from={target}-root /image /"
    ]
    _, made = STAGES[f"{target}-root"]
    assert re.findall(r"-r (\S+)", made) == [IMAGES[target].lock]
    assert f"deploy.image.root {target} /image" in made
    assert f"deploy.image.sbom {target} --root /image" in made


def test_every_package_is_locked_by_its_hash() -> None:
    steps = "\n".join(steps for _, steps in STAGES.values())
    commands = re.findall(r"/pip .*?(?= && |$)", steps, re.MULTILINE)
    assert len(commands) == 1 + 1 + 2 * len(IMAGES)
    for command in commands:
        # What the build makes of the checkout comes from no index.
        assert "--require-hashes" in command or "--no-deps" in command, command
    for lock in {*(image.lock for image in IMAGES.values()), "locks/build.txt"}:
        pins = re.split(r"\n(?=\S)", (CHECKOUT / lock).read_text().strip())
        assert all(re.match(r"[a-z0-9.-]+==\S+ ", pin) for pin in pins)
        assert all(" --hash=sha256:" in pin for pin in pins)


@pytest.mark.parametrize("target", IMAGES)
def test_a_lock_has_the_versions_of_the_others(target: str) -> None:
    own, *others = (
        dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (CHECKOUT / lock).read_text(), re.MULTILINE))
        for lock in (IMAGES[target].lock, "locks/runtime.txt", "locks/dev.txt")
    )
    for other in others:
        assert {name: other[name] for name in own} == own


def test_the_packages_that_are_left_out_are_in_no_lock_of_an_image() -> None:
    left = re.findall(r"^(\S+) ;", (CHECKOUT / "locks/left-out.txt").read_text(), re.MULTILINE)
    assert "aiohttp" in left
    for image in IMAGES.values():
        text = (CHECKOUT / image.lock).read_text()
        assert not [name for name in left if f"\n{name}==" in f"\n{text}"]


def test_nobody_is_root_and_the_agent_is_only_by_its_pod() -> None:
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE) == ["65532:65532"]
    assert "USER" in STAGES["image"][1]
    hooks, agent = (_pod(name) for name in ("hooks", "agent"))
    assert hooks["securityContext"]["runAsUser"] == 65532
    container = agent["containers"][0]["securityContext"]
    assert container["runAsUser"] == 0
    assert container["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("target", IMAGES)
def test_the_command_is_the_one_of_the_manifest(target: str) -> None:
    found = re.search(r"^CMD (\[.*\])$", STAGES[target][1], re.MULTILINE)
    assert found is not None
    assert json.loads(found[1]) == _pod(target)["containers"][0]["args"]


@pytest.mark.parametrize("target", IMAGES)
def test_the_labels_are_those_of_the_specification(target: str) -> None:
    steps = STAGES["image"][1] + STAGES[target][1]
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]+)"', steps))
    assert labels.keys() == {"title", "description", "vendor", "licenses", "version"}
    assert labels["title"] == IMAGES[target].name
    assert labels["version"] == __version__


def test_the_context_has_what_is_copied_and_no_more() -> None:
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert (ignored[0], ignored[-1]) == ("*", "**/__pycache__")
    admitted = {line.removeprefix("!") for line in ignored[1:-1]}
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
        for name in line.split()
    }
    assert {name.partition("/")[0] if "locks" in name else name for name in copied} == admitted
    assert {*SHIPPED} <= {name for name in copied if (CHECKOUT / name).is_dir()}


@pytest.fixture(scope="module", params=IMAGES)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """The packages of an image and no others, as links to those of this environment."""
    image = IMAGES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    for path, file in installed((CHECKOUT / image.lock).read_text()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(file)
    make_package(CHECKOUT, folder / "localmodel")
    for name in {*SHIPPED.values()} - {*image.modules}:
        shutil.rmtree(folder / "localmodel" / name)
    return request.param, folder


def run(site: Path, *arguments: str) -> str:
    """Run Python without the packages of this environment."""
    done = subprocess.run(
        [sys.executable, "-S", "-P", *arguments],
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# The takeover, in the image of the agent, uses the names of the hooks and nothing else of them.
ONLY_NAMES = ("localmodel.hooks", "localmodel.hooks.naming")
# One sets the environment of a gunicorn, the other writes into a checkout.
NOT_IMPORTED = ("localmodel.hooks.gunicorn_conf", "localmodel.crds.generate")


def test_the_packages_of_an_image_are_all_that_its_modules_import(site: tuple[str, Path]) -> None:
    target, folder = site
    modules = [
        ".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for file in (folder / "localmodel").rglob("*.py")
    ]
    modules = [module for module in modules if module not in NOT_IMPORTED]
    if target == "agent":
        modules = [m for m in modules if ".hooks" not in m or m in ONLY_NAMES]
    assert len(modules) > 20
    run(folder, "-c", f"import importlib\nfor m in {modules}: importlib.import_module(m)")


def test_the_programs_start_with_the_packages_of_their_image(site: tuple[str, Path]) -> None:
    target, folder = site
    if target == "hooks":
        command = json.loads(re.findall(r"^CMD (.*)", STAGES["hooks"][1], re.MULTILINE)[0])
        run(folder, "-m", *command, "--check-config")
    else:
        scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
        # The plugin of kubectl runs where kubectl runs.
        programs = {name for name in scripts if not name.startswith("kubectl")}
        assert programs == {*IMAGES["agent"].programs}
        for program in programs:
            told = run(folder, "-m", scripts[program].removesuffix(":main"), "--version")
            assert told == f"{program} {__version__}\n"


@pytest.mark.parametrize("site", ["agent"], indirect=True)
def test_the_agents_packages_reach_what_is_loaded_late(site: tuple[str, Path]) -> None:
    _, folder = site
    run(
        folder,
        "-c",
        "import boto3, kubernetes.client, yaml\n"
        "session = boto3.session.Session(region_name='eu-west-1')\n"
        "for name in session.get_available_services(): session.client(name)\n"
        "session.resource('s3')\n"
        "for api in dir(kubernetes.client): getattr(kubernetes.client, api)\n"
        "yaml.CSafeLoader",
    )


def test_a_package_that_the_lock_lacks_is_noticed(site: tuple[str, Path]) -> None:
    _, folder = site
    with pytest.raises(AssertionError, match="No module named 'hypothesis'"):
        run(folder, "-c", "import hypothesis")


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("kubernetes/aio/client/api_client.py", True),
        ("kubernetes/client/api_client.py", False),
        ("botocore/data/ec2/2016-11-15/service-2.json.gz", True),
        ("botocore/data/s3/2006-03-01/service-2.json.gz", False),
        ("botocore/data/s3control/2018-08-20/service-2.json.gz", True),
        ("botocore/data/endpoints.json", False),
        ("yaml/__init__.pyi", True),
        ("yaml/__init__.py", False),
    ],
)
def test_parts_that_no_program_uses_are_left_out(path: str, out: bool) -> None:
    assert left_out(path) is out


def test_the_library_has_no_tests_and_no_foreign_packages() -> None:
    paths = [path for path, _ in standard_library()]
    assert not [p for p in paths if "/site-packages/" in p or "/test/" in p or "_tkinter" in p]
    assert [p for p in paths if p.endswith("/json/decoder.py")]
    assert [p for p in paths if "/lib-dynload/_ssl." in p]


@pytest.mark.parametrize("target", IMAGES)
def test_a_bill_of_materials_names_the_lock_and_is_the_same_each_time(
    target: str, tmp_path: Path
) -> None:
    image = IMAGES[target]
    for folder in ("a", "b"):
        assert sbom.main([target, "--folder", str(tmp_path / folder)]) == 0
    name = f"{image.name}.cdx.json"
    first, second = ((tmp_path / folder / name).read_bytes() for folder in "ab")
    assert first == second
    found = json.loads(first)
    itself = found["metadata"]["component"]
    assert (itself["name"], itself["version"]) == (image.name, __version__)
    pins = [
        Requirement(line.removesuffix("\\").strip())
        for line in re.findall(r"^[a-z].*", (CHECKOUT / image.lock).read_text(), re.MULTILINE)
    ]
    purls = {f"pkg:pypi/{pin.name}@{str(pin.specifier)[2:]}" for pin in pins}
    assert {component["purl"] for component in found["components"]} == purls
    assert all(pin.marker is None or pin.marker.evaluate() for pin in pins)
    assert validated(first.decode()) is None


def validated(text: str) -> object:
    """What CycloneDX's own validator objects to."""
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_a_bill_can_have_what_is_not_of_python() -> None:
    more = [{"type": "library", "name": "libc6", "version": "2", "purl": "pkg:deb/debian/libc6@2"}]
    found = sbom.bill(IMAGES["hooks"], more)
    assert "pkg:deb/debian/libc6@2" in [component["bom-ref"] for component in found["components"]]
    assert validated(json.dumps(found)) is None


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_the_first_program_that_works_builds(programs: Path) -> None:
    program(programs, "docker", "echo 'Client: 1'; echo 'no daemon' >&2; exit 1")
    program(programs, "podman", "exit 0")
    program(programs, "buildah", "exit 0")
    assert builder.find() == "podman"
    assert builder.find("buildah") == "buildah"


def test_without_a_program_one_learns_what_to_install(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "docker", "echo 'no daemon' >&2; exit 1")
    assert build.main([]) == 1
    told = capsys.readouterr().err
    assert "docker: no daemon; podman: not installed; buildah: not installed" in told
    assert "apt-get install buildah" in told
    with pytest.raises(BuilderError, match="kaniko: not one of docker, podman, buildah"):
        builder.find("kaniko")


def test_both_images_are_built_with_all_options(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "buildah", f'echo "$@" >> {tmp_path}/calls')
    given = ["--registry", "r.example.com/", "--base", "b", "--", "--isolation", "chroot"]
    assert build.main(given) == 0
    _, *calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [
        f"build --target {target} --tag r.example.com/localmodel-{target}:{__version__} "
        f"--build-arg BASE=b --isolation chroot {CHECKOUT}"
        for target in ("hooks", "agent")
    ]
    assert f"r.example.com/localmodel-agent:{__version__}" in capsys.readouterr().out


def test_a_build_that_fails_is_named(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(programs, "podman", '[ "$1" = info ]')
    assert build.main(["hooks"]) == 1
    told = capsys.readouterr().err
    assert "failed with exit code 1" in told
    assert "podman build --target hooks" in told
    with pytest.raises(SystemExit):
        build.main(["operator"])
    assert "there is no image operator" in capsys.readouterr().err


def test_the_pages_build_and_load_the_images_that_the_manifests_name() -> None:
    base = yaml.safe_load((CHECKOUT / "deploy/base/kustomization.yaml").read_text())
    named = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in base["images"]}
    registry = "registry.example.com"
    assert named == {
        image.name: build.name_of(target, registry) for target, image in IMAGES.items()
    }
    page = (CHECKOUT / "docs/quick-start.md").read_text()
    assert f"make images REGISTRY={registry}\n" in page
    assert f"make images REGISTRY={registry}\n" in (CHECKOUT / "README.md").read_text()
    both = f"{registry}/localmodel-{{{','.join(IMAGES)}}}:{__version__}"
    for command in ("kind load docker-image", "podman save"):
        (line,) = re.findall(rf"^{command} .*$", page, re.MULTILINE)
        assert line.endswith(f" {both}")
    # A kubelet pulls an image with a fixed tag only if it has none: it uses the loaded images.
    for target in IMAGES:
        (container,) = _pod(target)["containers"]
        assert "imagePullPolicy" not in container
    assert not [name for name in named.values() if name.endswith(":latest")]


def test_a_commit_is_named_only_without_changes() -> None:
    assert [*build.build_options("hooks", "n", "", "")] == ["--target", "hooks", "--tag", "n"]
    assert [*build.build_options("hooks", "n", "", "c")][-1].endswith("image.revision=c")


def _pod(target: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((CHECKOUT / f"deploy/base/{target}.yaml").read_text())
    (pod,) = (
        document["spec"]["template"]["spec"]
        for document in documents
        if document["kind"] in {"DaemonSet", "Deployment"}
    )
    return dict(pod)
