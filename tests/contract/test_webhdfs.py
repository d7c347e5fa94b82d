from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.sources.hdfs import HdfsSource
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import RangeIgnoredError
from tests.contract.servers_webhdfs import PROGRAM, FileSystem, serving_files
from tests.contract.suite import CONTENT, SourceContract, Store, bytes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.contract.servers_webhdfs import RunningFileSystem

TOKEN = "delegationSecret"
WRONG = "wrongSecret"
ADA = Credentials.of({"HADOOP_USER_NAME": "ada"})
BEARER = Credentials.of({"HDFS_DELEGATION_TOKEN": TOKEN, "HADOOP_USER_NAME": "mallory"})


class HadoopStore(Store):
    secrets = (TOKEN, WRONG)
    bad = (
        Credentials.of({"HADOOP_USER_NAME": "mallory"}),
        Credentials.of({"HDFS_DELEGATION_TOKEN": WRONG}),
    )
    nobody = Credentials.of({})
    checksums = False

    def __init__(self, running: RunningFileSystem, good: Credentials) -> None:
        self.running = running
        self.source = HdfsSource(Transports(max_connections=4))
        self.good = good
        self._made = 0

    def put(self, files: Mapping[str, bytes]) -> str:
        self._made += 1
        self.running.system.put(f"/models/m {self._made}", files)
        return f"{self.running.uri}/models/m%20{self._made}"

    def change(self, uri: str, path: str, content: bytes) -> None:
        folder = uri.removeprefix(self.running.uri).replace("%20", " ")
        self.running.system.write(f"{folder}/{path}", content)


class TestWebHdfs(SourceContract):
    @pytest.fixture(scope="class", params=["simple", "kerberos"])
    @classmethod
    def store(cls, request: pytest.FixtureRequest) -> Iterator[Store]:
        kerberos = request.param == "kerberos"
        system = FileSystem(users={"ada"}, tokens={TOKEN}, kerberos=kerberos)
        with serving_files(system) as running:
            yield HadoopStore(running, BEARER if kerberos else ADA)


@pytest.fixture
def running() -> Iterator[RunningFileSystem]:
    system = FileSystem(users={"ada"}, tokens={TOKEN})
    system.put("/models/m", {"big": CONTENT, "sub/a b%.json": b"{}"})
    with serving_files(system) as running:
        yield running


@pytest.fixture
def source() -> HdfsSource:
    return HdfsSource(Transports(max_connections=2))


def failure(source: HdfsSource, uri: str, credentials: Credentials | None = None) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        source.resolve(uri, credentials or own_credentials(), None)
    return caught.value


def test_a_file_that_is_replaced_while_it_is_read_is_noticed(
    running: RunningFileSystem, source: HdfsSource
) -> None:
    model = source.resolve(f"{running.uri}/models/m", ADA, None)
    running.system.replace_during = "/models/m/big"

    with pytest.raises(DownloadError) as caught:
        bytes_of(model, model.files[0], 0, 100)
    assert caught.value.kind is FailureKind.CHANGED


def test_more_bytes_than_asked_for_are_corrupt(
    running: RunningFileSystem, source: HdfsSource
) -> None:
    model = source.resolve(f"{running.uri}/models/m", ADA, None)
    running.system.excess = 5

    with pytest.raises(DownloadError) as caught:
        bytes_of(model, model.files[0], 0, 100)
    assert caught.value.kind is FailureKind.CORRUPT


def test_a_file_that_is_gone_is_not_found(running: RunningFileSystem, source: HdfsSource) -> None:
    model = source.resolve(f"{running.uri}/models/m", ADA, None)
    running.system.files.clear()

    with pytest.raises(DownloadError) as caught:
        bytes_of(model, model.files[0])
    assert caught.value.kind is FailureKind.NOT_FOUND


def test_the_user_may_stand_in_the_uri(running: RunningFileSystem, source: HdfsSource) -> None:
    uri = running.uri.replace("//", "//ada@") + "/models/m"

    assert len(source.resolve(uri, Credentials.of({}), None).files) == 2


def test_the_agents_environment_is_used(
    running: RunningFileSystem, source: HdfsSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "ada")

    assert len(source.resolve(f"{running.uri}/models/m", own_credentials(), None).files) == 2


@pytest.mark.parametrize("uri", ["hdfs://models/m", "webhdfs://models/m/", "hdfs:///models/m"])
def test_a_uri_is_a_path_of_the_active_namenode(
    running: RunningFileSystem, source: HdfsSource, uri: str
) -> None:
    with serving_files(FileSystem(refuse=(403, "StandbyException"))) as standby:
        nodes = f"{standby.namenode.url};127.0.0.1:{running.namenode.server_port}"
        credentials = Credentials.of(
            {"HDFS_NAMENODE": nodes, "HADOOP_USER_NAME": "proxy", "USER_PROXY": "ada"}
        )
        model = source.resolve(uri, credentials or own_credentials(), None)

        read = {file.path: bytes_of(model, file) for file in model.files}
        assert read == {"big": CONTENT, "sub/a b%.json": b"{}"}


def test_a_root_path_comes_first(running: RunningFileSystem, source: HdfsSource) -> None:
    credentials = Credentials.of(
        {
            "HDFS_NAMENODE": running.namenode.url,
            "HDFS_ROOTPATH": "/models",
            "HADOOP_USER_NAME": "ada",
        }
    )

    assert len(source.resolve("hdfs://m", credentials, None).files) == 2


@pytest.mark.parametrize(
    ("refuse", "kind", "said"),
    [
        ((403, "StandbyException"), FailureKind.UNREACHABLE, "HDFS_NAMENODE"),
        ((403, "SafeModeException"), FailureKind.UNREACHABLE, "not ready"),
        ((403, "AccessControlException"), FailureKind.DENIED, "by ada"),
        ((403, "InvalidToken"), FailureKind.DENIED, "hdfs fetchdt"),
        ((401, ""), FailureKind.DENIED, "Kerberos"),
        ((400, "IllegalArgumentException"), FailureKind.INTERNAL, "IllegalArgumentException"),
        ((500, "RuntimeException"), FailureKind.UNREACHABLE, "RuntimeException"),
    ],
)
def test_a_refusal_says_what_to_do(
    running: RunningFileSystem,
    source: HdfsSource,
    refuse: tuple[int, str],
    kind: FailureKind,
    said: str,
) -> None:
    running.system.refuse = refuse

    error = failure(source, f"{running.uri}/models/m", ADA)
    assert error.kind is kind
    assert said in error.message


def test_a_link_is_refused(running: RunningFileSystem, source: HdfsSource) -> None:
    running.system.files["/models/m/big"].kind = "SYMLINK"

    error = failure(source, f"{running.uri}/models/m", ADA)
    assert error.kind is FailureKind.UNSUPPORTED
    assert "/models/m/big" in error.message


def test_what_is_no_namenode_is_told(running: RunningFileSystem, source: HdfsSource) -> None:
    uri = f"webhdfs://127.0.0.1:{running.datanode.server_port}/models/m"

    assert failure(source, uri, ADA).kind in {FailureKind.UNSUPPORTED, FailureKind.UNREACHABLE}


@pytest.mark.parametrize("name", ["KERBEROS_PRINCIPAL", "TLS_CERT", "HEADERS"])
def test_settings_that_it_cannot_use_are_told(source: HdfsSource, name: str) -> None:
    error = failure(source, "webhdfs://nn:9870/m", Credentials.of({name: "secret"}))

    assert error.kind is FailureKind.UNSUPPORTED
    assert name in error.message
    assert "secret" not in error.message


@pytest.mark.parametrize(
    "uri",
    [
        "webhdfs://nn:9870",
        "webhdfs://nn:9870/",
        "webhdfs:///m",
        "webhdfs://nn:x/m",
        "webhdfs://nn:1/../m",
    ],
)
def test_what_names_no_path(source: HdfsSource, uri: str) -> None:
    assert failure(source, uri, ADA).kind is FailureKind.UNSUPPORTED


class ProgramStore(Store):
    public = True
    checksums = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = HdfsSource(Transports(max_connections=1))
        self._made = 0

    def put(self, files: Mapping[str, bytes]) -> str:
        self._made += 1
        for path, content in files.items():
            place = self.root / f"m{self._made}" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return f"hdfs://nn:8020/m{self._made}"

    def change(self, uri: str, path: str, content: bytes) -> None:
        place = self.root / uri.rpartition("/")[2] / path
        place.write_bytes(content)
        # The program tells minutes.
        os.utime(place, (1_000_000_000, 1_000_000_000))


def program(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A folder that an `hdfs` program on PATH serves."""
    (folder / "bin").mkdir()
    (folder / "root").mkdir()
    script = folder / "bin" / "hdfs"
    script.write_text(PROGRAM.replace("{python}", f"{sys.executable} -IS"))
    script.chmod(0o755)
    patch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    patch.setenv("HDFS_ROOT", str(folder / "root"))
    return folder / "root"


class TestProgram(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
        with pytest.MonkeyPatch.context() as patch:
            yield ProgramStore(program(tmp_path_factory.mktemp("hadoop"), patch))


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = program(tmp_path, monkeypatch)
    (root / "m").mkdir()
    (root / "m" / "a b").write_bytes(CONTENT)
    return root


def test_the_default_file_system(local: Path, source: HdfsSource) -> None:
    assert local.is_dir()
    model = source.resolve("hdfs:///m", own_credentials(), None)

    (file,) = model.files
    assert (file.path, file.ranges, model.origin) == ("a b", False, "hdfs://default")
    assert bytes_of(model, file) == CONTENT
    with pytest.raises(RangeIgnoredError):
        model.read(file, 1, 2)


def test_a_stream_that_breaks_is_unreachable(
    local: Path, source: HdfsSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local.is_dir()
    model = source.resolve("hdfs:///m", own_credentials(), None)
    monkeypatch.setenv("CUT", "100")

    with pytest.raises(DownloadError) as caught:
        bytes_of(model, model.files[0])
    assert caught.value.kind is FailureKind.UNREACHABLE


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("ls: Permission denied: user=x", FailureKind.DENIED),
        ("org.ietf.jgss.GSSException: GSS initiate failed", FailureKind.DENIED),
        ("ls: Call From x to nn:8020 failed: Connection refused", FailureKind.UNREACHABLE),
    ],
)
def test_what_the_program_says(
    local: Path,
    source: HdfsSource,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    kind: FailureKind,
) -> None:
    assert local.is_dir()
    monkeypatch.setenv("SAY", said)

    assert failure(source, "hdfs:///m").kind is kind


def test_names_that_are_patterns_are_refused(local: Path, source: HdfsSource) -> None:
    (local / "m" / "a[1]").touch()

    assert failure(source, "hdfs:///m").kind is FailureKind.UNSUPPORTED
    assert failure(source, "hdfs:///m*").kind is FailureKind.UNSUPPORTED


def test_without_the_program_it_says_what_to_do(
    source: HdfsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    error = failure(source, "hdfs://nn:8020/m")
    assert error.kind is FailureKind.UNSUPPORTED
    assert "webhdfs://" in error.message


def test_the_program_takes_no_named_credentials(source: HdfsSource) -> None:
    error = failure(source, "hdfs://nn:8020/m", ADA)

    assert error.kind is FailureKind.UNSUPPORTED
    assert "webhdfs://" in error.message
