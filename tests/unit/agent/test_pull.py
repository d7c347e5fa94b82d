from __future__ import annotations

import hashlib
import os
import pty
import select
import signal
import socket
import subprocess
import time
from typing import IO, TYPE_CHECKING

import pytest

from agent.commands.exit_codes import exit_code
from agent.commands.progress import Lines, Shown, duration
from agent.structs.failures import TRANSIENT_KINDS, FailureKind
from tests.content import weights
from tests.unit.agent.commands import TREE, Ranges, command, environment, run, start
from tests.unit.agent.servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.unit.agent.servers import Server

# Most tests start the command as a process.
pytestmark = pytest.mark.timeout(120)

DATA = weights(12 << 20)


def hash_of(files: dict[str, bytes]) -> str:
    lines = "".join(f"{hashlib.sha256(d).hexdigest()}  {p}\n" for p, d in sorted(files.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


@pytest.fixture
def web() -> Ranges:
    return Ranges({"/model.bin": DATA})


@pytest.fixture
def server(web: Ranges) -> Iterator[Server]:
    with serving(web) as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(DATA[:100_000])
    (folder / "sub" / "b.txt").write_bytes(b"text")
    return folder


FILES = {"a.bin": DATA[:100_000], "sub/b.txt": b"text"}


def test_files_lie_in_the_directory_and_the_hash_is_told(source: Path, tmp_path: Path) -> None:
    done = run("pull", f"file://{source}", tmp_path / "deep" / "model")
    assert done.returncode == 0, done.stderr
    assert done.stdout == hash_of(FILES) + "\n"
    assert (tmp_path / "deep" / "model" / "sub" / "b.txt").read_bytes() == b"text"
    assert "2 files, 97.7Ki" in done.stderr
    assert "/s" in done.stderr
    assert "\x1b" not in done.stderr


def test_second_pull_asks_nobody_and_says_so(server: Server, web: Ranges, tmp_path: Path) -> None:
    first = run("pull", f"{server.url}/model.bin", tmp_path / "m")
    asked = len(server.seen)
    web.files.clear()
    again = run("pull", f"{server.url}/model.bin", tmp_path / "m")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "already there" in again.stderr
    assert len(server.seen) == asked


def test_interrupted_pull_goes_on_without_fetching_twice(
    server: Server, web: Ranges, tmp_path: Path
) -> None:
    web.pause = 0.15
    target = tmp_path / "m"
    with start("pull", f"{server.url}/model.bin", target) as process:
        wait_for(lambda: web.sent > len(DATA) // 3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not target.exists()
    time.sleep(0.5)
    web.pause, before, web.sent = 0.0, web.sent, 0
    again = run("pull", f"{server.url}/model.bin", target)
    assert again.returncode == 0, again.stderr
    assert (target / "model.bin").read_bytes() == DATA
    assert "from before" in again.stderr
    # What was on its way at the interruption, at most a piece or two for each connection.
    assert len(DATA) - before <= web.sent < len(DATA) - before // 2


def test_killed_pull_goes_on(server: Server, web: Ranges, tmp_path: Path) -> None:
    web.pause = 0.15
    with start("pull", f"{server.url}/model.bin", tmp_path / "m") as process:
        wait_for(lambda: web.sent > len(DATA) // 2)
        process.kill()
    time.sleep(0.5)
    web.pause, web.sent = 0.0, 0
    assert run("pull", f"{server.url}/model.bin", tmp_path / "m").returncode == 0
    assert (tmp_path / "m" / "model.bin").read_bytes() == DATA
    assert web.sent < len(DATA)


def test_two_pulls_into_one_directory_do_not_meet(
    server: Server, web: Ranges, tmp_path: Path
) -> None:
    # The first must not be done before the second has started, on a busy machine either.
    web.pause = 3.0
    with start("pull", f"{server.url}/model.bin", tmp_path / "m") as process:
        wait_for(lambda: web.sent > 0)
        second = run("pull", f"{server.url}/model.bin", tmp_path / "m")
        process.kill()
    assert second.returncode == 2
    assert "is under way" in second.stderr


def test_directories_of_others_are_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    before = sorted(tmp_path.iterdir())
    done = run("pull", f"file://{source}", tmp_path / "mine", "--force")
    assert done.returncode == 2
    assert "was not made by a pull" in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_in_a_pulled_directory_goes_only_by_force(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "m"
    run("pull", f"file://{source}", target)
    (target / "sub" / "b.txt").write_bytes(b"edited by hand")
    (target / "notes").write_text("mine")
    told = run("pull", f"file://{source}", target)
    assert told.returncode == 2
    assert "--force" in told.stderr
    kept = run("pull", f"file://{source}", target, "--force")
    assert kept.returncode == 2
    assert "'notes'" in kept.stderr
    (target / "notes").unlink()
    assert run("pull", f"file://{source}", target, "--force").returncode == 0
    assert (target / "sub" / "b.txt").read_bytes() == b"text"


def test_another_uri_needs_another_directory(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "m"
    run("pull", f"file://{source}", target)
    other = run("pull", f"file://{source}/sub", target)
    assert other.returncode == 2
    assert "which was pulled before" in other.stderr
    for path in sorted(target.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert run("pull", f"file://{source}/sub", target).returncode == 0
    assert [path.name for path in target.iterdir()] == ["b.txt"]


def test_a_copy_of_another_uri_that_cannot_be_read_is_left_alone(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "m"
    run("pull", f"file://{source}", target)
    (target / "notes.txt").write_text("mine")
    (target / "sub" / "b.txt").unlink()
    (target / "sub").rmdir()
    # A link to itself is not there, and it is not missing either.
    (target / "sub").symlink_to("sub")
    other = run("pull", f"file://{source}/a.bin", target)
    assert other.returncode == 2
    assert "cannot be read" in other.stderr
    assert (target / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["/", "."])
def test_places_that_no_rename_can_reach(source: Path, place: str) -> None:
    done = run("pull", f"file://{source}", place)
    assert done.returncode == 2
    assert "name a directory below it" in done.stderr


def test_verify_names_what_is_wrong(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "m"
    run("pull", f"file://{source}", target)
    good = run("pull", "--verify", f"file://{source}", target)
    assert (good.returncode, good.stdout) == (0, hash_of(FILES) + "\n")
    content = bytearray((target / "a.bin").read_bytes())
    content[77] ^= 1
    (target / "a.bin").write_bytes(content)
    (target / "sub" / "b.txt").unlink()
    (target / "more").touch()
    bad = run("pull", "--verify", f"file://{source}", target)
    assert (bad.returncode, bad.stdout) == (6, "")
    assert "a.bin has other content" in bad.stderr
    assert "sub/b.txt is not there" in bad.stderr
    assert "more is not a file of the model" in bad.stderr


def test_verify_follows_no_links(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "m"
    run("pull", f"file://{source}", target)
    (target / "a.bin").rename(tmp_path / "a.bin")
    (target / "a.bin").symlink_to(tmp_path / "a.bin")
    bad = run("pull", "--verify", f"file://{source}", target)
    assert (bad.returncode, bad.stdout) == (6, "")
    assert "a.bin is a symbolic link, which is not followed, and a file at the source" in bad.stderr
    # The folder itself may be named by a link.
    (target / "a.bin").unlink()
    (tmp_path / "a.bin").rename(target / "a.bin")
    (tmp_path / "link").symlink_to(target)
    assert run("pull", "--verify", f"file://{source}", tmp_path / "link").returncode == 0


def test_verify_sees_modes_that_changed_since_the_pull(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "m"
    run("pull", f"file://{source}", target)
    (target / "a.bin").chmod(0o600)
    (target / "sub").chmod(0o700)
    bad = run("pull", "--verify", f"file://{source}", target)
    assert (bad.returncode, bad.stdout) == (6, "")
    assert "a.bin has the mode 0600, so that servers of other users cannot read it" in bad.stderr
    assert "sub has the mode 0700" in bad.stderr
    assert "chmod a+rx it" in bad.stderr
    # What somebody else made may be as closed as they like.
    (source / "a.bin").chmod(0o600)
    assert run("pull", "--verify", f"file://{source}", source).returncode == 0


def test_verify_sees_a_change_of_the_source(server: Server, web: Ranges, tmp_path: Path) -> None:
    run("pull", f"{server.url}/model.bin", tmp_path / "m")
    web.files["/model.bin"] = DATA[::-1]
    done = run("pull", "--verify", f"{server.url}/model.bin", tmp_path / "m")
    assert done.returncode == 6
    assert "changed at the source" in done.stderr


def test_verify_without_a_pull_tells_what_it_cannot(source: Path) -> None:
    done = run("pull", "--verify", f"file://{source}", source)
    assert done.returncode == 0
    assert "only the size was compared" in done.stderr
    assert not list(source.parent.glob(".*"))


def test_expected_hash(source: Path, tmp_path: Path) -> None:
    wrong = run("pull", f"file://{source}", tmp_path / "m", "--hash", "sha256:" + "0" * 64)
    assert wrong.returncode == 6
    assert wrong.stderr.startswith("localmodel-agent: Corrupt:") or "Corrupt" in wrong.stderr
    assert not (tmp_path / "m").exists()
    assert run("pull", f"file://{source}", tmp_path / "m", "--hash", hash_of(FILES)).returncode == 0


def test_what_passes_by_itself_is_tried_again(server: Server, web: Ranges, tmp_path: Path) -> None:
    web.refuse = [500, 500]
    done = run("pull", f"{server.url}/model.bin", tmp_path / "m")
    assert done.returncode == 0
    assert "try 1 of 3" in done.stderr


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("uri", "code", "kind"),
    [
        ("{url}/none", 3, "NotFound"),
        ("file:///proc/1/mem-is-not-there", 3, "NotFound"),
        ("http://127.0.0.1:{port}/x", 5, "Unreachable"),
        ("ftp://host/x", 8, "Unsupported"),
        ("https://{host}/x", 9, "TLS"),
    ],
)
def test_failures_have_their_codes(
    server: Server, tmp_path: Path, uri: str, code: int, kind: str
) -> None:
    host = server.url.removeprefix("http://")
    full = uri.format(url=server.url, host=host, port=closed_port())
    done = run("pull", full, tmp_path / "m", "--retries", "0")
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"localmodel-agent: {kind}: ")
    # Nothing to come back to is nothing to leave.
    assert list(tmp_path.iterdir()) == []


def test_denied(server: Server, web: Ranges, tmp_path: Path) -> None:
    web.refuse = [403] * 3
    assert run("pull", f"{server.url}/model.bin", tmp_path / "m").returncode == 4


def test_throttled(server: Server, web: Ranges, tmp_path: Path) -> None:
    web.refuse = [429] * 100
    done = run("pull", f"{server.url}/model.bin", tmp_path / "m", "--retries", "0")
    assert done.returncode == 5
    assert "Throttled" in done.stderr


def test_every_kind_of_failure_has_a_code_that_is_documented() -> None:
    page = (TREE / "docs" / "agent.md").read_text()
    for kind in FailureKind:
        assert f"| {exit_code(kind)} |" in page, kind
    for code in (0, 130, 143):
        assert f"| {code} |" in page
    assert all(exit_code(kind) in {5, 6} for kind in TRANSIENT_KINDS)


def test_lines_are_few() -> None:
    class Stream:
        text = ""

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

    now = 0.0
    stream = Stream()
    lines = Lines(stream, clock=lambda: now)  # type: ignore[arg-type]
    for second in range(100):
        now = second / 10
        lines.show("m", Shown("downloading", second << 20, 100 << 20, 10 << 20))
    lines.say("m is there")
    assert stream.text.splitlines() == [
        "m: downloading 50Mi/100Mi (50%) 10Mi/s 5.0s left",
        "m is there",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (42.4, "42s"), (59.7, "60s"), (200, "3m20s"), (3725, "1h02m")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def on_a_terminal(
    *arguments: object, stdout: IO[bytes] | None = None, **variables: str
) -> tuple[int, str]:
    """The exit code, and all that a terminal gets."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        cwd=TREE,
        env=environment(**{"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"} | variables),
        stdin=secondary,
        stdout=stdout or secondary,
        stderr=secondary,
    )
    os.close(secondary)
    seen = b""
    try:
        while select.select([primary], [], [], 60)[0]:
            try:
                piece = os.read(primary, 65536)
            except OSError:
                # A terminal that nobody writes to any more.
                break
            seen += piece
        return process.wait(60), seen.decode()
    finally:
        os.close(primary)
        process.kill()
        process.wait()


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_bars_on_a_terminal(
    server: Server, web: Ranges, tmp_path: Path, variables: dict[str, str]
) -> None:
    web.pause = 0.12
    code, seen = on_a_terminal(
        "pull", f"{server.url}/model.bin", tmp_path / "m", stdout=None, **variables
    )
    assert code == 0, seen
    assert "━" in seen
    assert "/12Mi" in seen
    assert "downloading" in seen
    # Lines that are drawn over, and colors unless they are not wanted.
    assert "\x1b[2K" in seen
    assert ("\x1b[38;" in seen) is not bool(variables)
    # The cursor comes back.
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")


def test_hash_goes_to_stdout_while_bars_go_to_a_terminal(source: Path, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        code, seen = on_a_terminal("pull", f"file://{source}", tmp_path / "m", stdout=out)
    assert code == 0
    assert (tmp_path / "out").read_text() == hash_of(FILES) + "\n"
    assert "sha256:" not in seen


def test_verify_keeps_what_it_found_on_a_terminal(source: Path, tmp_path: Path) -> None:
    run("pull", f"file://{source}", tmp_path / "m")
    (tmp_path / "m" / "a.bin").unlink()
    code, seen = on_a_terminal("pull", "--verify", f"file://{source}", tmp_path / "m")
    assert code == 6
    assert "a.bin is not there" in seen
    assert "differs from" in seen.splitlines()[-1]


def test_dumb_terminal_gets_lines(source: Path, tmp_path: Path) -> None:
    code, seen = on_a_terminal("pull", f"file://{source}", tmp_path / "m", TERM="dumb")
    assert code == 0
    assert "\x1b" not in seen


def test_quiet_says_the_hash_only(source: Path, tmp_path: Path) -> None:
    done = run("pull", "--quiet", f"file://{source}", tmp_path / "m")
    assert (done.stdout, done.stderr) == (hash_of(FILES) + "\n", "")


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
