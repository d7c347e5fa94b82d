from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent.cluster.node_api import ApiUnavailableError, parse_node
from agent.commands.exit_codes import OK
from agent.commands.file_node import FileNode
from agent.commands.models_file import ModelsError, read_models
from agent.commands.standalone import Watcher
from crds.keys import model_key
from tests.unit.agent.commands import run, start
from tests.unit.agent.test_pull import closed_port, on_a_terminal, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# Most tests start an agent as a process.
pytestmark = pytest.mark.timeout(120)


class World:
    """A folder with sources, a file of models, and a root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "models.yaml"
        self.root = folder / "root"
        for name in ("a", "b"):
            (folder / name).mkdir()
            (folder / name / "weights").write_bytes(name.encode() * 100_000)

    def uri(self, name: str) -> str:
        return f"file://{self.folder / name}"

    def path(self, name: str) -> Path:
        return self.root / "models" / model_key(self.uri(name)) / "weights"

    def want(self, *names: str) -> None:
        lines = [f"- uri: {self.uri(name)}" for name in names]
        self.write("models:\n" + "\n".join(lines) if lines else "models: []")

    def write(self, content: str) -> None:
        """At once: an agent that looks meanwhile must not find half of it."""
        new = self.file.with_suffix(".new")
        new.write_text(content)
        new.replace(self.file)

    def arguments(self, *more: object) -> list[object]:
        return ["run", "--models", self.file, "--root", self.root, *more]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_once_brings_all_models(world: World) -> None:
    world.want("a", "b")
    done = run(*world.arguments("--once"))
    assert done.returncode == 0, done.stderr
    assert world.path("a").read_bytes() == b"a" * 100_000
    assert world.path("b").exists()
    assert "a is there: 97.7Ki, sha256:" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_models_is_a_wish_too(world: World) -> None:
    world.want()
    assert run(*world.arguments("--once")).returncode == 0


def test_once_ends_with_the_failure_and_has_the_rest(world: World) -> None:
    world.want("none", "a")
    done = run(*world.arguments("--once"))
    assert done.returncode == 3
    assert world.path("a").exists()
    assert done.stderr.splitlines()[-1].startswith("localmodel-agent: none: NotFound: ")


def test_once_tries_again_what_may_pass(world: World) -> None:
    world.write(f"models: [{{uri: 'http://127.0.0.1:{closed_port()}/x'}}]")
    done = run(*world.arguments("--once", "--retries", "1"))
    assert done.returncode == 5
    assert done.stderr.count("x failed: Unreachable") == 2


def test_follows_its_file_until_a_signal(world: World) -> None:
    world.want("a")
    with start(*world.arguments("--grace-seconds", "0")) as process:
        wait_for(world.path("a").exists)
        world.write("models: [{")
        world.want("b")
        wait_for(world.path("b").exists)
        wait_for(lambda: not world.path("a").exists())
        world.write("models: no list")
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        told = next(line for line in lines if "stay as they were" in line)
        assert "models" in told
        assert world.path("b").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_verify_finds_a_flipped_byte(world: World) -> None:
    world.want("a", "b")
    run(*world.arguments("--once"))
    whole = world.path("b").stat().st_ino
    content = bytearray(world.path("a").read_bytes())
    content[5] ^= 1
    world.path("a").write_bytes(content)
    done = run(*world.arguments("--once", "--verify"))
    assert done.returncode == 0
    assert "a: weights has other content" in done.stderr
    assert world.path("a").read_bytes() == b"a" * 100_000
    assert world.path("b").stat().st_ino == whole


def test_verify_mends_a_mode_that_changed(world: World) -> None:
    world.want("a")
    run(*world.arguments("--once"))
    before = world.path("a").stat().st_ino
    world.path("a").chmod(0o600)
    done = run(*world.arguments("--once", "--verify"))
    assert done.returncode == 0
    assert "a is whole" in done.stderr
    found = world.path("a").stat()
    assert (found.st_ino, found.st_mode & 0o777) == (before, 0o644)


def test_verify_leaves_other_files_of_a_folder_alone(world: World) -> None:
    # As in a folder that another program has filled, and that was adopted.
    folder = world.path("a").parent
    (folder / ".cache").mkdir(parents=True)
    world.path("a").write_bytes(b"a" * 100_000)
    (folder / ".cache" / "theirs").write_text("x")
    world.want("a")
    run(*world.arguments("--once"))
    before = world.path("a").stat().st_ino
    done = run(*world.arguments("--once", "--verify"))
    assert done.returncode == 0
    assert "a is whole" in done.stderr
    assert world.path("a").stat().st_ino == before
    assert (folder / ".cache" / "theirs").read_text() == "x"


def test_on_a_terminal(world: World) -> None:
    world.want("a")
    code, seen = on_a_terminal(*world.arguments("--once"))
    assert code == 0, seen
    assert "a is there" in seen


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read"),
        ("", "is empty"),
        ("models: [", "is not YAML"),
        ("- a", "not a mapping"),
        ("models: [{name: x}]", "uri"),
        ("models: [{uri: nowhere}]", "uri"),
        ("models: [{uri: 's3://b/m', hash: abc}]", "hash"),
        ("models: [{uri: 's3://b/m', sha: abc}]", "sha"),
        ("models: [{uri: 's3://b/k', size: 0}]", "above zero"),
        ("models: [{uri: 's3://b/k', size: -1Gi}]", "less than zero"),
        ("models: [{uri: 's3://b/k', size: 1e1000000}]", "not a quantity"),
        ("models: [{uri: 's3://b/m', name: 2024-13-45}]", "is not YAML"),
        ("{kind: List, items: 5}", "not a sequence"),
        ("{kind: List, items: {a: b}}", "not a sequence"),
        ("kind: Pod", "only LocalModelCache is supported"),
        ("kind: LocalModelCache", "no metadata or no spec"),
        (
            "{kind: LocalModelCache, metadata: {name: x}, spec: {storage: {key: k}}}",
            "names credentials of a cluster",
        ),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, content: str | None, text: str) -> None:
    path = tmp_path / "models.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelsError, match=text):
        read_models(path)


def test_wrong_file_at_the_start_is_told_in_one_line(world: World) -> None:
    world.write("models: [{name: x}]")
    done = run(*world.arguments())
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("localmodel-agent: ")


def test_both_forms_of_models(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(
        "models:\n"
        "- {uri: 's3://b/low'}\n"
        "- {uri: 's3://b/high', name: h, priority: 5, size: 3Gi}\n"
        "- {uri: 'hf://x/same'}\n"
        "- {uri: 'hf://y/same'}\n"
        "---\n"
        "kind: List\n"
        "items:\n"
        "- kind: LocalModelCache\n"
        "  metadata: {name: cached}\n"
        "  spec: {sourceModelUri: 's3://b/c', modelSize: 1Gi, priority: 9, nodeGroup: g}\n"
    )
    models = read_models(path)
    names = [model.model_name for model in models]
    assert names[:3] == ["cached", "h", "low"]
    assert names[3:] == [f"same-{model_key(f'hf://{org}/same')[:6]}" for org in "xy"]
    assert models[1].model_size == "3Gi"


class Told:
    def __init__(self) -> None:
        self.statuses: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.seen: list[dict[str, Any] | None] = []
        self.stopped = threading.Event()


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    yield told
    told.stopped.set()


def test_file_node_is_like_an_api_server(world: World, told: Told) -> None:
    world.want("a")
    node = FileNode(
        world.file,
        on_status=lambda status, _: told.statuses.append(status),
        on_problem=told.problems.append,
        poll_seconds=0.01,
    )
    node.load()
    threading.Thread(target=node.watch, args=(told.seen.append, told.stopped), daemon=True).start()
    wait_for(lambda: bool(told.seen))
    first = told.seen[0]
    assert first is not None
    parsed = parse_node(first)
    assert parsed is not None
    assert [model.key for model in parsed.spec.local_models] == [model_key(world.uri("a"))]
    # The status comes back by the watch, and an old version is refused.
    version = first["metadata"]["resourceVersion"]
    stored = node.write_status(version, {"models": []})
    assert stored is not None
    assert told.seen[-1] == stored
    assert node.write_status(version, {}) is None
    assert told.statuses == [{"models": []}]
    # A wrong file is told once, changes nothing, and lets nothing be taken away.
    count = len(told.seen)
    world.write("models: {")
    wait_for(lambda: bool(told.problems))
    with pytest.raises(ApiUnavailableError):
        node.read()
    world.want("b")
    wait_for(lambda: len(told.seen) > count)
    assert len(told.problems) == 1
    latest = told.seen[-1]
    assert latest is not None
    assert latest["metadata"]["generation"] == 2


class Screen:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, name: str, shown: object) -> None:
        pass

    def drop(self, name: str) -> None:
        pass

    def say(self, line: str) -> None:
        self.lines.append(line)

    def close(self) -> None:
        pass


class FakeStop:
    code: int | None = None

    def finish(self, code: int) -> None:
        self.code = code


def test_once_waits_for_the_hash_and_forgives_a_failure_that_passed(world: World) -> None:
    world.want("a")
    models = read_models(world.file)
    stop, screen = FakeStop(), Screen()
    watcher = Watcher(screen, stop, once=True, retries=1)  # type: ignore[arg-type]
    key = models[0].key
    entry = {"key": key, "name": "a", "cached": False}
    failed = {**entry, "state": "Failed", "reason": "Unreachable", "message": "gone"}
    here = {**entry, "state": "Downloaded", "cached": True, "size": 5}
    for model in ({**failed, "attempts": 1}, {**here}):
        watcher.observe({"models": [model]}, models)
        assert stop.code is None
    watcher.observe({"models": [{**here, "hash": "sha256:x"}]}, models)
    assert stop.code == OK
    assert watcher.failures == []
    assert screen.lines[-1] == "a has the hash sha256:x"
    watcher.observe({"models": []}, ())
    assert screen.lines[-1] == "a is removed"
