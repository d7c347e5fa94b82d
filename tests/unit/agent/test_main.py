from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from agent.commands import flags, logs
from agent.commands.flags import parse
from agent.commands.limits_file import read_limits
from agent.disk.store import Store
from agent.engine.limits import Limits
from agent.main import main
from agent.structs.log import log
from tests.unit.agent.api_server import FakeServer, write_kubeconfig
from tests.unit.agent.commands import start
from tests.unit.agent.helpers import local_model, node_object, publish
from tests.unit.agent.servers import serving
from tests.unit.agent.test_pull import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).parent.parent.parent.parent


@pytest.fixture(autouse=True)
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither this process's variables reach the command, nor its logging the other tests."""
    for name in [*os.environ]:
        if name.startswith("LOCALMODEL_") or name == "KUBERNETES_SERVICE_HOST":
            monkeypatch.delenv(name)
    handlers, level = logging.root.handlers, logging.root.level
    yield
    structlog.reset_defaults()
    log.send_to(None)
    logging.root.handlers, logging.root.level = handlers, level


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    return write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What is said to arguments that cannot work: one line, and exit code 2."""
    try:
        code = main(["run", *map(str, arguments)])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    (line,) = captured.err.splitlines()
    assert line.startswith("localmodel-agent")
    return line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--node-name"),
        (["--node-name", "n"], "--root"),
        (["--node-name", "Not A Node", "--root", "x"], "is not the name of a node"),
        (
            ["--node-name", "n", "--root", "x", "--credentials-namespace", "A.b"],
            "is not the name of a namespace",
        ),
        (["--node-name", "n", "--root", "x", "--grace-seconds", "soon"], "not a number of seconds"),
        (["--node-name", "n", "--root", "x", "--grace-seconds", "-1"], "not a number of seconds"),
        (["--node-name", "n", "--root", "x", "--max-downloads", "0"], "whole number above zero"),
        (["--node-name", "n", "--root", "x", "--disk-size", "much"], "is not a quantity"),
        (["--node-name", "n", "--root", "x", "--volumes", "each"], "is neither model nor root"),
        (
            ["--node-name", "n", "--root", "x", "--kubelet-thresholds", "nodefs.available=x"],
            "not a quantity such as 500Mi or 140Gi, nor a percentage",
        ),
        (
            ["--node-name", "n", "--root", "x", "--kubelet-configz", "http://10.0.0.7/configz"],
            "is not a URL such as https://10.0.0.7:10250/configz",
        ),
        (
            ["--node-name", "n", "--root", "x", "--kubelet-file-systems", "nodefs,all"],
            "'nodefs,all' is not auto, nodefs, imagefs or nodefs,imagefs",
        ),
        (["--node-name", "n", "--root", "x", "--log-format", "xml"], "invalid choice"),
        *(
            (["--node-name", "n", "--root", "x", "--http-bind-address", value], text)
            for value, text in {
                "8081": "is not an address and a port, such as :8081",
                ":65536": "is not an address and a port",
                "::1:8081": "is not an address and a port",
                "[127.0.0.1]:8081": "is not an address and a port",
                "localhost:8081": "'localhost' is not an address such as 10.0.0.7",
                "192.0.2.1:0": "cannot listen on 192.0.2.1:0: ",
            }.items()
        ),
        (
            ["--node-name", "n", "--root", "x", "--peer-bind-address", ":8089"],
            "--peer-bind-address on all addresses needs --peer-address",
        ),
        (
            ["--node-name", "n", "--root", "x", "--peer-bind-address", "[::]:8089"],
            "--peer-bind-address on all addresses needs --peer-address",
        ),
        (["--node-name", "n", "--root", "x", "--peer", "h:1"], "--peer needs --models"),
        *(
            (["--models", "f", "--root", "x", "--peer", value], text)
            for value, text in {
                "10.0.0.7": "'10.0.0.7' is not a host and a port, such as 10.0.0.7:8089",
                "10.0.0.7:0": "is not a host and a port",
                "10.0.0.7:70000": "is not a host and a port",
                "::1:8089": "is not a host and a port",
                "[host]:8089": "'host' is not an address such as 10.0.0.7",
                "http://host:8089": "is not a host and a port",
            }.items()
        ),
        (["--node-name", "n", "--root", "x", "--unknown"], "unrecognized arguments"),
        (["--node-name", "n", "--root", "x", "--bytes-per-second", "fast"], "not a quantity"),
        (["--node-name", "n", "--root", "x", "--bytes-per-second", "0"], "not above zero"),
        (["--node-name", "n", "--root", "x", "--connections-per-origin", "65"], "from 1 to 64"),
        (["--node-name", "n", "--root", "x", "--allow-pvc", "claim"], "CLAIM=DIR"),
        (["--node-name", "n", "--root", "x", "--once"], "--once needs --models"),
        (["--node-name", "n", "--root", "x", "--verify"], "--verify needs --models"),
        (["--models", "f"], "--root"),
        (["--models", "f", "--root", "x", "--kubeconfig", "k"], "without Kubernetes"),
        (
            ["--models", "f", "--root", "x", "--startup-taint-priority", "1"],
            "leave out --startup-taint-priority",
        ),
        (
            ["--node-name", "n", "--root", "x", "--startup-taint-priority", "high"],
            "'high' is not a priority",
        ),
        (
            ["--node-name", "n", "--root", "x", "--startup-taint-priority", "2147483648"],
            "not a priority",
        ),
        (["--models", "/none", "--root", "x"], "/none cannot be read"),
        (["--node-name", "n", "--root", "x"], "not in a cluster"),
        (["--node-name", "n", "--root", "x", "--kubeconfig", "/none"], "cannot use the kubeconfig"),
    ],
)
def test_mistakes_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert text in refused(capsys, *arguments)


def test_environment_serves_for_flags(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kubeconfig: Path
) -> None:
    monkeypatch.setenv("LOCALMODEL_NODE_NAME", "node-1")
    monkeypatch.setenv("LOCALMODEL_ROOT", "/dev/null/root")
    monkeypatch.setenv("LOCALMODEL_KUBECONFIG", str(kubeconfig))
    assert "cannot use /dev/null" in refused(capsys)
    monkeypatch.setenv("LOCALMODEL_GRACE_SECONDS", "never")
    assert "'never' is not a number of seconds" in refused(capsys)


def test_lists_and_switches_of_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALMODEL_MODELS", "models.yaml")
    monkeypatch.setenv("LOCALMODEL_ROOT", "root")
    monkeypatch.setenv("LOCALMODEL_ALLOW_PVC", "one=/mnt/one,two=/mnt/two")
    monkeypatch.setenv("LOCALMODEL_ONCE", "yes")
    monkeypatch.setenv("LOCALMODEL_BYTES_PER_SECOND", "1Ki")
    options = parse(["run", "--allow-pvc", "three=/3"])
    assert dict(options.allow_pvc) == {
        "one": Path("/mnt/one"),
        "two": Path("/mnt/two"),
        "three": Path("/3"),
    }
    assert options.once
    assert not options.verify
    assert options.bytes_per_second == 1024
    monkeypatch.setenv("LOCALMODEL_ONCE", "maybe")
    assert "LOCALMODEL_ONCE: 'maybe' is neither true nor false" in refused(capsys)


def test_an_agent_exchanges_nothing_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ["run", "--node-name", "n", "--root", "/r"]
    monkeypatch.setenv("LOCALMODEL_PEER_BIND_ADDRESS", "")
    assert parse(run).peer_bind_address is None
    monkeypatch.setenv("LOCALMODEL_PEER_BIND_ADDRESS", ":8089")
    monkeypatch.setenv("LOCALMODEL_PEER_ADDRESS", "10.0.0.7")
    monkeypatch.setenv("LOCALMODEL_PEER_UPLOAD_BYTES_PER_SECOND", "1Mi")
    options = parse(run)
    assert (options.peer_bind_address, options.peer_address) == (("", 8089), "10.0.0.7")
    assert (options.peer_upload_bytes_per_second, options.peer_upload_connections) == (1 << 20, 16)


def test_peers_are_named_by_flags_without_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALMODEL_PEER", "node-1.example.com:8089,10.0.0.7:8089")
    options = parse(["run", "--models", "f", "--root", "/r", "--peer", "[::1]:8089"])
    assert options.peer == ["node-1.example.com:8089", "10.0.0.7:8089", "[::1]:8089"]
    assert parse(["pull", "http://host/m", "d", "--peer", "h:1"]).peer[-1] == "h:1"


def test_the_startup_taint_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ["run", "--node-name", "n", "--root", "/r"]
    assert parse(run).startup_taint_priority is None
    monkeypatch.setenv("LOCALMODEL_STARTUP_TAINT_PRIORITY", "")
    assert parse(run).startup_taint_priority is None
    # Zero is a priority too.
    monkeypatch.setenv("LOCALMODEL_STARTUP_TAINT_PRIORITY", "0")
    assert parse(run).startup_taint_priority == 0
    assert parse([*run, "--startup-taint-priority", "-5"]).startup_taint_priority == -5


def test_flags_know_what_their_imports_would_tell() -> None:
    assert flags.LOG_FORMATS == logs.FORMATS


def test_wrong_limits_keep_it_from_starting(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kubeconfig: Path
) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("bytesPerSecond: soon")
    arguments = ["--node-name", "n", "--root", tmp_path / "root", "--kubeconfig", kubeconfig]
    assert "bytesPerSecond" in refused(capsys, *arguments, "--limits-file", limits)
    assert not (tmp_path / "root").exists()


def test_file_of_limits_wins_where_it_says_something(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    flag = Limits(connections_per_origin=8, bytes_per_second=1000)
    assert read_limits(path, flag) == flag
    path.write_text("connectionsPerOrigin: 32")
    assert read_limits(path, flag) == Limits(32, 1000)
    path.write_text("bytesPerSecond: 1Mi")
    assert read_limits(path, flag) == Limits(8, 1 << 20)


def test_help_starts_fast() -> None:
    """By what is not imported: times depend on the machine."""
    code = (
        "import sys\n"
        "from agent.main import main\n"
        "try:\n"
        "    main(['pull', '--help'])\n"
        "finally:\n"
        "    heavy = {'kubernetes', 'pydantic', 'requests', 'boto3', 'structlog', 'rich'}\n"
        "    print(heavy & set(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=True
    )
    assert done.stderr == "set()\n"


@pytest.mark.parametrize("module", ["agent.commands.pull", "agent.commands.standalone"])
def test_kubernetes_is_for_clusters_only(module: str) -> None:
    code = f"import sys, {module}; print('kubernetes' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_second_agent_on_a_root_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kubeconfig: Path
) -> None:
    store = Store(tmp_path / "root")
    store.open()
    line = refused(
        capsys, "--node-name", "n", "--root", tmp_path / "root", "--kubeconfig", kubeconfig
    )
    store.close()
    assert "another agent already works on" in line


@pytest.mark.parametrize("step", ["scan", "remove"])
def test_a_disk_that_fails_while_it_is_verified_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str
) -> None:
    real, root, models = getattr(Store, step), tmp_path / "root", tmp_path / "models.yaml"

    def fails(self: Store, *arguments: object) -> object:
        if self.root != root:
            # Threads of other tests may still look at theirs, and would log this failure.
            return real(self, *arguments)
        raise OSError(errno.EIO, "Input/output error", str(self.root / "models"))

    models.write_text("models: []")
    store = Store(root)
    store.open()
    manifest = publish(store, "mem://model", {"w": b"1"})
    (store.path(manifest.key) / "w").write_bytes(b"2")
    store.close()
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(Store, step, fails)
    line = refused(
        capsys, "--models", models, "--root", root, "--once", "--verify", "--log-format", "json"
    )
    assert f"{root}/models cannot be" in line
    assert "Input/output error; check the disk" in line


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with serving(FakeServer()) as server:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        arguments = ["--node-name", "n", "--root", str(tmp_path / "root")]
        arguments += ["--kubeconfig", str(kubeconfig)]
        with subprocess.Popen(
            [sys.executable, "-m", "agent.main", "run", *arguments],
            cwd=TREE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            yield process
            process.kill()


@pytest.mark.timeout(120)  # an agent starts
def test_sigterm_ends_it_well_and_quickly(agent: subprocess.Popen[str]) -> None:
    assert agent.stderr is not None
    started = json.loads(agent.stderr.readline())
    assert started["message"] == "Agent started"
    assert started["node"] == "n"
    assert started["level"] == "info"
    agent.send_signal(signal.SIGTERM)
    before = time.monotonic()
    assert agent.wait(10) == 0
    assert time.monotonic() - before < 3


@pytest.mark.timeout(120)  # an agent starts
def test_agent_reads_named_credentials_and_follows_its_limits(tmp_path: Path) -> None:
    fake = FakeServer()
    fake.node = node_object(
        local_model("m", "s3://bucket/model", service_account_name="reader"),
        metadata={"name": "n", "uid": "u", "generation": 1, "resourceVersion": "10"},
    )
    limits = tmp_path / "limits.yaml"
    limits.write_text("bytesPerSecond: 1Mi")
    with serving(fake) as server:
        arguments = ["--node-name", "n", "--root", str(tmp_path / "root")]
        arguments += ["--kubeconfig", str(write_kubeconfig(tmp_path / "kubeconfig", server.url))]
        arguments += ["--credentials-namespace", "secrets", "--limits-file", str(limits)]
        with start("run", *arguments) as process:
            asked = "/api/v1/namespaces/secrets/serviceaccounts/reader"
            wait_for(lambda: asked in [path for _, path, _ in server.seen])
            limits.write_text("connectionsPerOrigin: 3")
            assert process.stderr is not None
            logged = (json.loads(line) for line in process.stderr)
            set_ = [next(e for e in logged if e["message"] == "Limits are set") for _ in range(2)]
            process.kill()
    assert [entry["bytesPerSecond"] for entry in set_] == [1 << 20, None]
    assert [entry["connectionsPerOrigin"] for entry in set_] == [64, 3]
