from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.sources.addresses import Rules
from agent.sources.hf import HuggingFaceSource, split
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import ChecksumAlgorithm
from tests.contract.servers_hf import Hub, Repo, serving_hub
from tests.contract.suite import CONTENT, SourceContract, Store, bytes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.contract.servers_hf import RunningHub

TOKEN = "hf_goodSecret"
POOR = "hf_poorSecret"
WRONG = "hf_wrongSecret"
FILES = {".gitattributes": b"* lfs", "big.bin": CONTENT, "sub/c.json": b"{}"}


def settings(hub: RunningHub, token: str = "") -> Credentials:
    values = {"HF_ENDPOINT": hub.url}
    return Credentials.of(values | {"HF_TOKEN": token} if token else values)


class HubStore(Store):
    secrets = (TOKEN, POOR, WRONG)
    parts = False

    def __init__(self, running: RunningHub, *, public: bool, gated: bool) -> None:
        self.running = running
        self.source = HuggingFaceSource(Transports(max_connections=4))
        self.good = settings(running, TOKEN)
        self.bad = (settings(running, WRONG),)
        self.nobody = settings(running)
        self.public = public
        self.gated = gated
        if gated:
            self.bad += (settings(running, POOR),)

    def put(self, files: Mapping[str, bytes]) -> str:
        name = f"org/model-{len(self.running.hub.repos)}"
        repo = Repo(readers=None if self.public else {TOKEN}, gated=self.gated)
        repo.commit(files)
        self.running.hub.repos[name] = repo
        return f"hf://{name}"

    def change(self, uri: str, path: str, content: bytes) -> None:
        repo = self.running.hub.repos[uri.removeprefix("hf://")]
        repo.commit(repo.commits[repo.refs["main"]] | {path: content})

    def missing(self) -> str:
        return "hf://org/absent"


class TestHub(SourceContract):
    @pytest.fixture(scope="class", params=["public", "private", "gated"])
    @classmethod
    def store(cls, request: pytest.FixtureRequest) -> Iterator[Store]:
        with serving_hub(Hub(tokens={TOKEN, POOR}, page=2)) as running:
            public, gated = request.param == "public", request.param == "gated"
            yield HubStore(running, public=public, gated=gated)


class TestMirrorWithoutTrees(SourceContract):
    @pytest.fixture(scope="class", params=["all", "names"])
    @classmethod
    def store(cls, request: pytest.FixtureRequest) -> Iterator[Store]:
        hub = Hub(tokens={TOKEN, POOR}, without_trees=(404, b"no"), describes=request.param)
        with serving_hub(hub) as running:
            yield HubStore(running, public=False, gated=False)


@pytest.fixture
def running() -> Iterator[RunningHub]:
    repo = Repo(readers={TOKEN})
    repo.commit(FILES)
    with serving_hub(Hub({"org/m": repo}, tokens={TOKEN, POOR})) as running:
        yield running


@pytest.fixture
def source() -> HuggingFaceSource:
    return HuggingFaceSource(Transports(max_connections=2))


def failure(source: HuggingFaceSource, uri: str, credentials: Credentials) -> DownloadError:
    try:
        model = source.resolve(uri, credentials, None)
        bytes_of(model, model.files[0])
    except DownloadError as error:
        return error
    pytest.fail("it did not fail")


def test_every_file_is_listed_with_its_pin(running: RunningHub, source: HuggingFaceSource) -> None:
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)

    assert [file.path for file in model.files] == sorted(FILES)
    assert model.version == running.hub.repos["org/m"].refs["main"]
    algorithms = [file.checksum.algorithm for file in model.files if file.checksum]
    git, lfs = ChecksumAlgorithm.GIT_BLOB, ChecksumAlgorithm.SHA256
    assert algorithms == [git, lfs, git]


def test_the_token_goes_to_the_hub_only(running: RunningHub, source: HuggingFaceSource) -> None:
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)
    assert {f.path: bytes_of(model, f) for f in model.files} == FILES

    assert all(headers["Authorization"] == f"Bearer {TOKEN}" for *_, headers in running.server.seen)
    assert running.cdn.seen
    assert not any("Authorization" in headers for *_, headers in running.cdn.seen)


def test_pages_are_asked_of_the_hub_only(running: RunningHub, source: HuggingFaceSource) -> None:
    running.hub.page = 1
    running.hub.pages_at = running.cdn.url
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)

    assert len(model.files) == len(FILES)
    assert not running.cdn.seen


def test_the_signed_url_is_asked_for_once(running: RunningHub, source: HuggingFaceSource) -> None:
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)
    big = next(file for file in model.files if file.path == "big.bin")
    for start in range(0, 5000, 1000):
        assert bytes_of(model, big, start, start + 1000) == CONTENT[start : start + 1000]

    assert [command for command, *_ in running.server.seen].count("HEAD") == 1
    assert len(running.cdn.seen) == 5


def test_a_signed_url_that_expired_is_renewed(
    running: RunningHub, source: HuggingFaceSource
) -> None:
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)
    big = next(file for file in model.files if file.path == "big.bin")
    assert bytes_of(model, big, 0, 10) == CONTENT[:10]
    running.hub.generation += 1

    assert bytes_of(model, big, 10, 20) == CONTENT[10:20]
    assert [command for command, *_ in running.server.seen].count("HEAD") == 2


def test_a_token_that_was_withdrawn_is_denied(
    running: RunningHub, source: HuggingFaceSource
) -> None:
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)
    running.hub.tokens.clear()

    for file in model.files:
        with pytest.raises(DownloadError, match="refuses HF_TOKEN") as caught:
            bytes_of(model, file)
        assert caught.value.kind is FailureKind.DENIED
        assert TOKEN not in caught.value.message


def test_a_branch_that_moves_changes_nothing(
    running: RunningHub, source: HuggingFaceSource
) -> None:
    model = source.resolve("hf://org/m:main", settings(running, TOKEN), None)
    running.hub.repos["org/m"].commit(dict.fromkeys(FILES, CONTENT[::-1]))

    assert {f.path: bytes_of(model, f) for f in model.files} == FILES


def test_threads_renew_a_signed_url_once(running: RunningHub, source: HuggingFaceSource) -> None:
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)
    big = next(file for file in model.files if file.path == "big.bin")
    assert bytes_of(model, big, 0, 10) == CONTENT[:10]
    running.hub.generation += 1

    with ThreadPoolExecutor(8) as threads:
        pieces = threads.map(lambda at: bytes_of(model, big, at, at + 1024), range(0, 10240, 1024))
        assert b"".join(pieces) == CONTENT
    assert [command for command, *_ in running.server.seen].count("HEAD") == 2


def test_a_former_commit_is_resumed(running: RunningHub, source: HuggingFaceSource) -> None:
    repo = running.hub.repos["org/m"]
    former = repo.refs["main"]
    repo.commit({"new": b"2"})

    credentials = settings(running, TOKEN)
    model = source.resolve("hf://org/m", credentials, former)
    assert model.version == former
    assert {f.path: bytes_of(model, f) for f in model.files} == FILES
    del repo.commits[former]
    assert [f.path for f in source.resolve("hf://org/m", credentials, former).files] == ["new"]


@pytest.mark.parametrize("revision", ["refs/pr/1", "v1.0", "dev"])
def test_a_revision_is_a_branch_a_tag_or_a_request(
    running: RunningHub, source: HuggingFaceSource, revision: str
) -> None:
    running.hub.repos["org/m"].commit({"other": b"1"}, revision)

    model = source.resolve(f"hf://org/m:{revision}", settings(running, TOKEN), None)
    assert [file.path for file in model.files] == ["other"]


def test_a_model_without_an_organisation_may_have_moved(
    running: RunningHub, source: HuggingFaceSource
) -> None:
    running.hub.moved["m"] = "org/m"

    model = source.resolve("hf://m", settings(running, TOKEN), None)
    assert {f.path: bytes_of(model, f) for f in model.files} == FILES


@pytest.mark.parametrize(
    ("token", "said"), [("", "whose HF_TOKEN you give"), (POOR, "the account of HF_TOKEN")]
)
def test_a_gated_model_says_what_to_do(
    running: RunningHub, source: HuggingFaceSource, token: str, said: str
) -> None:
    running.hub.repos["org/m"].gated = True

    error = failure(source, "hf://org/m", settings(running, token))
    assert error.kind is FailureKind.DENIED
    assert f"accept its licence at {running.url}/org/m" in error.message
    assert said in error.message


@pytest.mark.parametrize(
    ("uri", "token", "kind", "said"),
    [
        ("hf://org/m", "", FailureKind.DENIED, "give HF_TOKEN if it is private"),
        ("hf://org/m", POOR, FailureKind.NOT_FOUND, "that HF_TOKEN may read it"),
        ("hf://org/m", WRONG, FailureKind.DENIED, "refuses HF_TOKEN"),
        ("hf://org/m:gone", TOKEN, FailureKind.NOT_FOUND, "no such revision"),
        ("hf://org/m", "two words", FailureKind.DENIED, "the bare token"),
    ],
)
def test_a_refusal_says_what_to_do(
    running: RunningHub,
    source: HuggingFaceSource,
    uri: str,
    token: str,
    kind: FailureKind,
    said: str,
) -> None:
    error = failure(source, uri, settings(running, token))

    assert error.kind is kind
    assert said in error.message
    assert not token or token not in error.message


@pytest.mark.parametrize(
    ("status", "headers", "kind", "wait"),
    [
        (429, {"RateLimit": '"api";r=0;t=55'}, FailureKind.THROTTLED, 55),
        (429, {"Retry-After": "7", "RateLimit": '"api";r=0;t=55'}, FailureKind.THROTTLED, 7),
        (503, {}, FailureKind.THROTTLED, None),
        (500, {}, FailureKind.UNREACHABLE, None),
        (403, {}, FailureKind.DENIED, None),
        (
            403,
            {"X-Error-Message": "Access to this resource is disabled."},
            FailureKind.DENIED,
            None,
        ),
    ],
)
def test_other_answers(
    running: RunningHub,
    source: HuggingFaceSource,
    status: int,
    headers: dict[str, str],
    kind: FailureKind,
    wait: float | None,
) -> None:
    running.hub.refuse = (status, headers)

    error = failure(source, "hf://org/m", settings(running, TOKEN))
    assert (error.kind, error.retry_after) == (kind, wait)


@pytest.mark.parametrize(
    ("linked", "kind"),
    [
        ({"X-Linked-Size": "1"}, FailureKind.CORRUPT),
        ({"X-Linked-ETag": f'"{"0" * 64}"'}, FailureKind.CORRUPT),
        ({"X-Repo-Commit": "0" * 40}, FailureKind.CHANGED),
        ({"Location": "http://[/"}, FailureKind.UNSUPPORTED),
        ({"Location": "?again"}, FailureKind.UNSUPPORTED),
    ],
)
def test_a_redirect_that_does_not_fit_is_not_followed(
    running: RunningHub,
    source: HuggingFaceSource,
    linked: dict[str, str],
    kind: FailureKind,
) -> None:
    running.hub.linked = linked
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)
    big = next(file for file in model.files if file.path == "big.bin")

    with pytest.raises(DownloadError) as caught:
        bytes_of(model, big)
    assert caught.value.kind is kind
    assert not running.cdn.seen


def test_a_redirect_to_a_refused_network_is_denied() -> None:
    repo = Repo()
    repo.commit({"big.bin": CONTENT})
    refused = (ip_network("127.0.0.2/32"),)
    source = HuggingFaceSource(Transports(max_connections=1, rules=Rules(refused=refused)))
    with serving_hub(Hub({"org/m": repo}), cdn_address="127.0.0.2") as running:
        error = failure(source, "hf://org/m", settings(running))

        assert error.kind is FailureKind.DENIED
        assert "127.0.0.2" in error.message
        assert not running.cdn.seen


def test_a_mirror_without_head_works(running: RunningHub, source: HuggingFaceSource) -> None:
    running.hub.without_head = True
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)

    assert {f.path: bytes_of(model, f) for f in model.files} == FILES
    assert not any("Authorization" in headers for *_, headers in running.cdn.seen)


@pytest.mark.parametrize("describes", ["all", "names"])
@pytest.mark.parametrize(
    ("status", "body"),
    [(400, b""), (403, b"no"), (404, b"{}"), (405, b""), (501, b""), (200, b"<html>app</html>")],
)
def test_a_mirror_without_trees_works(
    running: RunningHub, source: HuggingFaceSource, status: int, body: bytes, describes: str
) -> None:
    expected = source.resolve("hf://org/m", settings(running, TOKEN), None)
    running.hub.without_trees, running.hub.describes = (status, body), describes
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)

    assert model.version == expected.version
    assert {f.path: bytes_of(model, f) for f in model.files} == FILES
    sizes = {file.path: file.size for file in expected.files}
    assert {file.path: file.size for file in model.files} == sizes
    big = next(file for file in expected.files if file.path == "big.bin")
    assert big in model.files
    assert not any("Authorization" in headers for *_, headers in running.cdn.seen)


def test_a_mirrors_own_etags_are_no_digests(running: RunningHub, source: HuggingFaceSource) -> None:
    hub = running.hub
    hub.without_trees, hub.describes, hub.plain = (404, b""), "names", True
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)

    assert {f.path: bytes_of(model, f) for f in model.files} == FILES
    assert {file.path: file.size for file in model.files} == {p: len(c) for p, c in FILES.items()}
    assert [file.checksum for file in model.files] == [None] * len(FILES)
    assert all(file.version for file in model.files)
    # Nothing would show that ranges are of two versions.
    assert not any(file.ranges for file in model.files)


def test_a_mirror_without_trees_and_heads_is_read_in_streams(
    running: RunningHub, source: HuggingFaceSource
) -> None:
    hub = running.hub
    hub.without_trees, hub.describes, hub.without_head = (404, b""), "names", True
    model = source.resolve("hf://org/m", settings(running, TOKEN), None)

    assert [file.size for file in model.files] == [None] * len(FILES)
    assert {file.version for file in model.files} == {model.version}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, FailureKind.NOT_FOUND), (403, FailureKind.DENIED), (200, FailureKind.UNSUPPORTED)],
)
def test_a_mirror_that_lists_nothing_says_what_it_said_first(
    running: RunningHub, source: HuggingFaceSource, status: int, kind: FailureKind
) -> None:
    running.hub.without_trees, running.hub.describes = (status, b"no"), "nothing"

    assert failure(source, "hf://org/m", settings(running, TOKEN)).kind is kind


def test_what_a_hub_has_is_listed_by_as_few_requests_as_can_be(
    running: RunningHub, source: HuggingFaceSource
) -> None:
    commit = running.hub.repos["org/m"].refs["main"]
    for revision, asked in (
        ("main", ["revision/main", f"tree/{commit}"]),
        (commit, ["tree/" + commit]),
    ):
        running.server.seen.clear()
        model = source.resolve(f"hf://org/m:{revision}", settings(running, TOKEN), None)
        assert model.version == commit
        paths = [path.removeprefix("/api/models/org/m/") for _, path, _ in running.server.seen]
        assert paths == asked


def test_a_mirror_that_describes_no_commits_lists_their_trees(
    running: RunningHub, source: HuggingFaceSource
) -> None:
    """As newer libraries ask: that there is such a commit, its tree shows."""
    commit = running.hub.repos["org/m"].refs["main"]
    error = failure(source, f"hf://org/m:{'0' * 40}", settings(running, TOKEN))
    assert error.kind is FailureKind.NOT_FOUND
    assert len(source.resolve(f"hf://org/m:{commit}", settings(running, TOKEN), None).files) == 3


def test_the_environment_names_the_mirror_and_its_token_is_the_agents_own(
    running: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{running.url}/")
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\n")
    own = own_credentials()
    source = HuggingFaceSource(Transports(max_connections=2), own.get("HF_ENDPOINT"))

    assert len(source.resolve("hf://org/m", own, None).files) == len(FILES)
    # Named credentials use the agent's mirror, and never its token.
    assert failure(source, "hf://org/m", Credentials.of({})).kind is FailureKind.DENIED


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"[]", b'{"sha": "main"}'])
def test_what_is_no_hub_is_told(
    running: RunningHub, source: HuggingFaceSource, body: bytes
) -> None:
    running.hub.strange = body

    error = failure(source, "hf://org/m", settings(running, TOKEN))
    assert error.kind is FailureKind.UNSUPPORTED
    assert "check HF_ENDPOINT" in error.message


@pytest.mark.parametrize("endpoint", ["ftp://hub", "hub", "http://", "http://[", "https://h?x=1"])
def test_an_endpoint_must_be_an_address(source: HuggingFaceSource, endpoint: str) -> None:
    error = failure(source, "hf://org/m", Credentials.of({"HF_ENDPOINT": endpoint}))
    assert error.kind is FailureKind.UNSUPPORTED
    assert "HF_ENDPOINT" in error.message


@pytest.mark.parametrize(
    ("uri", "name", "revision"),
    [
        ("hf://org/model", "org/model", "main"),
        ("hf://org/model/", "org/model", "main"),
        ("hf://org/model:", "org/model", "main"),
        ("hf://gpt2", "gpt2", "main"),
        ("hf://gpt2:refs/pr/1", "gpt2", "refs/pr/1"),
        ("HF://a.b/c_d-e:v1.0", "a.b/c_d-e", "v1.0"),
    ],
)
def test_names(uri: str, name: str, revision: str) -> None:
    assert split(uri) == (name, revision)


@pytest.mark.parametrize(
    "uri",
    [
        "hf://",
        "hf:///m",
        "hf://a/b/c",
        "hf://a/../b",
        "hf://../b",
        "hf://a/b?x",
        "hf://a@b/c",
        "hf://a/b:../c",
        "hf://a/b:x/../c",
        "hf://a/b:x y",
        "hf://a/b:.",
    ],
)
def test_what_names_no_model(uri: str) -> None:
    with pytest.raises(DownloadError) as caught:
        split(uri)
    assert caught.value.kind is FailureKind.UNSUPPORTED
    assert "hf://organisation/model" in caught.value.message
