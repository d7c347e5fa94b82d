"""Reading and following the objects of a cluster, and what the commands print of it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from deploy.kube.client import KubeClient
from deploy.kube.errors import ForbiddenError
from deploy.kubectl import follow
from deploy.kubectl.complete import main as complete_main
from deploy.kubectl.follow import Follower
from deploy.kubectl.main import plugin
from deploy.kubectl.snapshot import NotInstalledError, read
from deploy.local.layout import CHECKOUT
from tests.unit.agent.api_server import write_kubeconfig
from tests.unit.agent.servers import serving
from tests.unit.kubectl.api import Api, row
from tests.unit.kubectl.objects import cache, cluster, condition, group, local_model_node, node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

    from deploy.kube.kinds import Kind

# Programs are started, each of which imports the client.
pytestmark = pytest.mark.timeout(120)
SECONDS = 20.0
PROGRAM = ("-m", "deploy.kubectl.main")


@pytest.fixture
def api() -> Api:
    snapshot = cluster(node("node-2", ready="False"))
    cordoned = node("node-3")
    cordoned["spec"]["unschedulable"] = True
    return Api(
        {
            "LocalModelCache": list(snapshot.caches),
            "LocalModelNodeGroup": list(snapshot.groups),
            "LocalModelNode": list(snapshot.local_model_nodes),
            "LocalModelPlacement": list(snapshot.placements),
            "Node": [*snapshot.nodes, cordoned],
        }
    )


@pytest.fixture
def kubeconfig(api: Api, tmp_path: Path) -> Iterator[Path]:
    with serving(api) as server:
        yield write_kubeconfig(tmp_path / "config", server.url)
        api.end_watches()


@pytest.fixture
def client(kubeconfig: Path) -> KubeClient:
    return KubeClient.connect(kubeconfig)


def test_all_kinds_are_read_in_pages(client: KubeClient, api: Api) -> None:
    snapshot = read(client)
    assert snapshot.cache_by_name.keys() == {("", "llama")}
    assert snapshot.local_model_node_by_name.keys() == {"node-1", "node-2"}
    assert sorted(api.lists) == sorted(api.objects)
    assert snapshot.node_by_name["node-1"] == node("node-1") | {"apiVersion": "v1"}
    assert snapshot.node_by_name["node-2"]["status"]["conditions"][0]["status"] == "False"
    assert snapshot.node_by_name["node-3"]["spec"] == {"unschedulable": True}
    assert not snapshot.forbidden
    assert not snapshot.absent


def test_a_kind_that_is_refused_or_absent_is_named(client: KubeClient, api: Api) -> None:
    api.refused = {"Node": 403, "LocalModelPlacement": 404}
    snapshot = read(client)
    assert snapshot.forbidden == {"Node": "nodes is refused"}
    assert snapshot.absent == {"LocalModelPlacement"}
    assert snapshot.caches


def test_a_cluster_without_localmodel_or_without_rights(client: KubeClient, api: Api) -> None:
    api.refused = {kind: 404 for kind in api.objects if kind != "Node"}
    with pytest.raises(NotInstalledError, match="localmodel is not installed there"):
        read(client)
    api.refused = dict.fromkeys(api.objects, 403)
    with pytest.raises(ForbiddenError, match="is refused"):
        read(client)


def test_changes_are_followed_without_a_second_list(client: KubeClient, api: Api) -> None:
    with Follower(client) as follower:
        before = list(api.lists)
        seen = 0

        def after(kind: str, event: str, obj: dict[str, Any]) -> None:
            nonlocal seen
            obj["metadata"]["resourceVersion"] = "8"
            api.events[kind].put({"type": event, "object": obj})
            seen = follower.wait(seen, SECONDS)

        after("LocalModelCache", "ADDED", cache(name="phi"))
        assert ("", "phi") in follower.snapshot().cache_by_name
        after("LocalModelCache", "DELETED", cache(name="phi"))
        assert ("", "phi") not in follower.snapshot().cache_by_name
        after("LocalModelNode", "MODIFIED", local_model_node("node-1", disk={"capacity": "1Gi"}))
        changed = follower.snapshot().local_model_node_by_name["node-1"]
        assert changed["status"]["disk"] == {"capacity": "1Gi"}
        table: dict[str, Any] = {"metadata": {}, "rows": [row(node("node-2"))]}
        after("Node", "MODIFIED", table)
        ready = follower.snapshot().node_by_name["node-2"]["status"]["conditions"][0]["status"]
        assert ready == "True"
        assert api.lists == before
        assert not follower.trouble

        # A version that is too old: the kind is listed again.
        gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "metadata": {}}}
        api.objects["LocalModelNodeGroup"].append(group(name="cpu"))
        api.events["LocalModelNodeGroup"].put(gone)
        follower.wait(seen, SECONDS)
        assert "cpu" in follower.snapshot().group_by_name
        assert api.lists == [*before, "LocalModelNodeGroup"]


def test_an_unexpected_event_is_trouble_and_the_kind_is_listed_again(
    client: KubeClient, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonsense: dict[str, Any] = {"metadata": {"resourceVersion": "8"}, "rows": []}
    troubles = []
    noted = Follower._break

    def note(self: Follower, kind: Kind, why: str) -> None:
        troubles.append(why)
        noted(self, kind, why)

    monkeypatch.setattr(Follower, "_break", note)
    monkeypatch.setattr(follow, "_PAUSE_SECONDS", 0.01)
    with Follower(client) as follower:
        api.objects["Node"] = [node("node-9")]
        api.events["Node"].put({"type": "MODIFIED", "object": nonsense})
        seen = 0
        while "node-9" not in follower.snapshot().node_by_name:
            seen = follower.wait(seen, SECONDS)
        assert troubles[0].startswith("following nodes: IndexError(")
        assert not follower.trouble


def test_a_user_who_may_list_and_not_watch_keeps_what_was_listed(
    client: KubeClient, api: Api
) -> None:
    api.unwatched = {"LocalModelCache"}
    with Follower(client) as follower:
        seen = 0
        while not follower.trouble:
            seen = follower.wait(seen, SECONDS)
        assert "watching localmodelcaches" in follower.trouble
        assert ("", "llama") in follower.snapshot().cache_by_name


def _run(kubeconfig: Path, *args: str) -> Result:
    return CliRunner().invoke(plugin, args, env={"KUBECONFIG": str(kubeconfig)})


def _on_terminal(kubeconfig: Path, *args: str, columns: int, **env: str) -> str:
    """The output of a command on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    chunks: list[bytes] = []

    def collect() -> None:
        try:
            while chunk := os.read(ours, 1 << 16):
                chunks.append(chunk)
        except OSError:
            # The other end is closed.
            return

    reader = threading.Thread(target=collect)
    reader.start()
    process = subprocess.Popen(
        [sys.executable, *PROGRAM, *args],
        cwd=CHECKOUT,
        env=os.environ
        | {"KUBECONFIG": str(kubeconfig), "COLUMNS": str(columns), "TERM": "xterm-256color"}
        | env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    process.wait()
    os.close(theirs)
    reader.join()
    os.close(ours)
    return b"".join(chunks).decode()


def test_a_pipe_gets_neither_colours_nor_lines_and_a_terminal_does(
    kubeconfig: Path, api: Api
) -> None:
    message = "a long message of many words " * 9
    api.objects["LocalModelCache"] = [cache(condition("Ready", "False", "NoNodes", message))]
    piped = _run(kubeconfig, "status").stdout
    assert "\x1b" not in piped
    assert "─" not in piped
    assert message.strip() in piped
    assert all(line == line.rstrip() for line in piped.splitlines())
    shown = _on_terminal(kubeconfig, "status", columns=60, NO_COLOR="1")
    assert "\x1b[3" not in shown
    assert "─" in shown
    assert max(map(len, _plain(shown))) <= 60
    assert "\x1b[31mFalse" in _on_terminal(kubeconfig, "status", columns=120)
    why = _on_terminal(kubeconfig, "why", "llama", columns=60, NO_COLOR="1")
    assert max(map(len, _plain(why))) <= 60


def _plain(text: str) -> list[str]:
    for style in ("\x1b[1m", "\x1b[0m"):
        text = text.replace(style, "")
    return text.splitlines()


def test_exit_codes_and_errors(kubeconfig: Path, api: Api, tmp_path: Path) -> None:
    assert _run(kubeconfig, "why", "llama").exit_code == 0
    waits = cache(condition("Admitted", "Unknown", "PlanPending"))
    api.objects["LocalModelCache"] = [waits]
    assert _run(kubeconfig, "why", "llama").exit_code == 3
    api.objects["LocalModelCache"] = [cache(condition("Admitted", "False", "ModelTooLarge"))]
    broken = _run(kubeconfig, "-o", "json", "why", "llama")
    assert broken.exit_code == 4
    assert json.loads(broken.stdout)["cause"]["reason"] == "ModelTooLarge"
    api.objects["LocalModelCache"] = [cache()]
    api.refused = {"LocalModelNode": 403}
    assert _run(kubeconfig, "why", "llama").exit_code == 5
    api.refused = {}
    unknown = _run(kubeconfig, "why", "lama")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr == "Error: there is no cache lama; did you mean llama?\n"
    missing = _run(tmp_path / "none", "status")
    assert missing.exit_code == 2
    assert "cannot use the kubeconfig" in missing.stderr
    api.refused = dict.fromkeys(api.objects, 404)
    absent = _run(kubeconfig, "status")
    assert absent.exit_code == 1
    assert "localmodel is not installed there" in absent.stderr
    assert "Traceback" not in absent.stderr


def test_watching_in_a_pipe_prints_each_change(kubeconfig: Path, api: Api) -> None:
    process = subprocess.Popen(
        [sys.executable, *PROGRAM, "status", "--watch", "-o", "json"],
        cwd=CHECKOUT,
        env=os.environ | {"KUBECONFIG": str(kubeconfig)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert [one["name"] for one in first["models"]] == ["llama"]
        added = cache(name="phi")
        added["metadata"]["resourceVersion"] = "8"
        api.events["LocalModelCache"].put({"type": "ADDED", "object": added})
        second = json.loads(process.stdout.readline())
        assert [one["name"] for one in second["models"]] == ["llama", "phi"]
    finally:
        process.kill()
        process.communicate()


def test_watching_on_a_terminal_draws_changes_until_ctrl_c(kubeconfig: Path, api: Api) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        ["env", "--default-signal=INT", sys.executable, *PROGRAM, "status", "--watch"],
        cwd=CHECKOUT,
        env=os.environ | {"KUBECONFIG": str(kubeconfig), "COLUMNS": "100", "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    try:
        assert _until(ours, "1 model on 2 nodes")
        added = cache(name="phi")
        added["metadata"]["resourceVersion"] = "8"
        api.events["LocalModelCache"].put({"type": "ADDED", "object": added})
        assert _until(ours, "2 models on 2 nodes")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


def _until(terminal: int, words: str) -> bool:
    """Read from a terminal until it shows some words; the limit of the test ends it otherwise."""
    text = ""
    while words not in text:
        text += os.read(terminal, 1 << 16).decode(errors="replace")
    return True


def test_help_imports_little() -> None:
    """The start takes a tenth of a second, where the client alone takes half of one."""
    code = (
        "import sys; from click.testing import CliRunner; from deploy.kubectl.main import plugin; "
        "assert CliRunner().invoke(plugin, ['--help']).exit_code == 0; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"kubernetes", "rich", "pydantic", "msgspec", "hooks", "agent", "urllib3"}


def test_a_client_imports_nothing_else_of_the_agent() -> None:
    """The agent's log and its types would take a third of the time of all imports of `status`."""
    code = (
        "import sys; import deploy.kubectl.status, deploy.kubectl.snapshot, deploy.kube.client; "
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.split()) & {"structlog", "crds.node", "agent.cluster.report"}


@pytest.fixture
def complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    def run(kubeconfig: Path, *words: str) -> list[str]:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        complete_main(words)
        return capsys.readouterr().out.splitlines()

    return run


def test_completion_without_a_cluster_completes_nothing(
    complete: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert complete(tmp_path / "none", "why", "") == [":4"]


def test_completion_of_words(kubeconfig: Path, complete: Callable[..., list[str]]) -> None:
    assert complete(kubeconfig, "why", "l") == ["llama", ":4"]
    assert complete(kubeconfig, "why", "llama", "node") == ["node-1", "node-2", ":4"]
    assert complete(kubeconfig, "st") == ["status\tShow groups, models and nodes.", ":4"]
    assert complete(kubeconfig, "status", "--kubeconfig", "x") == [":0"]
    assert complete(kubeconfig) == complete(kubeconfig, "")
