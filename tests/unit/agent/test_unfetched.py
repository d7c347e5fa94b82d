"""What the agent cannot fetch is told with what to do, and tried again seldom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.sources import all_sources
from agent.sources.unfetched import is_repository
from agent.structs.failures import DownloadError, FailureKind
from crds.models import SCHEMES
from tests.unit.agent.helpers import local_model

if TYPE_CHECKING:
    from tests.unit.agent.world import World

SOURCES = all_sources()
FETCHED = ("azure", "file", "gs", "hdfs", "hf", "http", "https", "pvc", "s3", "swebhdfs", "webhdfs")


def _refused(uri: str, namespace: str = "") -> str:
    with pytest.raises(DownloadError) as caught:
        SOURCES.of(uri, namespace)
    assert caught.value.kind is FailureKind.UNSUPPORTED
    return caught.value.message


@pytest.mark.parametrize("namespace", ["", "team-a"])
@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("oci://registry/model:v1", "without a cache"),
        ("oci+fetch://registry/model:v1", "OCI image"),
        ("oci+native://registry/model:v1", "OCI image"),
        ("oci+modelcar://registry/model:v1", "OCI image"),
        ("modelscope://owner/model:master", "hf://"),
        ("model-registry://iris/v1", "registry has for its artifact"),
        ("git://host/model", "archive of a release"),
        ("git+https://host/model.git", "Git repository"),
        ("git+ssh://git@host/model.git", "Git repository"),
        ("https://host/model.git", "Git repository"),
        ("http://host/model.git/", "Git repository"),
        ("https://me:s3cret@host/model.git?x=s3cret", "Git repository"),
    ],
)
def test_what_kserve_fetches_and_we_do_not_says_what_to_do(
    uri: str, words: str, namespace: str
) -> None:
    message = _refused(uri, namespace)
    assert words in message
    assert "s3://" in message
    assert "create a cache with that sourceModelUri" in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("uri", "meant"),
    [("s33://b/m", "s3"), ("htps://h/m", "https"), ("gcs://b/m", "gs"), ("hff://o/m", "hf")],
)
def test_a_mistyped_scheme_names_the_one_that_was_meant(uri: str, meant: str) -> None:
    assert f"If {meant}:// was meant" in _refused(uri)


@pytest.mark.parametrize("uri", ["nonsense", "", "quux://h/m", "://h", "oci:/r/m"])
def test_what_is_like_nothing_guesses_nothing(uri: str) -> None:
    assert " was meant" not in _refused(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://raw.githubusercontent.com/o/r/main/model.bin",
        "https://host/x.git/info/model.bin",
        "https://host/model.github",
        "https://host/model?ref=x.git",
        "https://[::1/x.git",
        "s3://bucket/x.git",
    ],
)
def test_what_is_no_repository_is_fetched_as_ever(uri: str) -> None:
    assert not is_repository(uri)
    assert SOURCES.of(uri, "")


def test_blobs_are_blobs_whatever_they_are_named() -> None:
    SOURCES.of("https://account.blob.core.windows.net/c/x.git", "")


@pytest.mark.parametrize("name", sorted({*SCHEMES} - {*FETCHED}))
def test_every_other_scheme_that_the_crd_takes_is_explained(name: str) -> None:
    assert " That is " in _refused(f"{name}://host/path")


def test_it_is_tried_again_seldom(world: World) -> None:
    world.want(local_model("a", "oci://registry/model"))
    world.settle()
    told = world.status()["models"][0]
    assert (told["state"], told["reason"], told["attempts"]) == ("Failed", "Unsupported", 1)
    assert told["nextRetryTime"]
    world.step(40)
    world.settle()
    assert world.status()["models"][0]["attempts"] == 1
    assert not world.server.seen
