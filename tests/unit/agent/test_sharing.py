"""What a download does with a verified manifest: digests of its files, and the listing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from agent.disk.journal import JournalFile
from agent.jobs.sharing import Sharing
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import RemoteFile
from agent.structs.requests import Request, Requester
from agent.structs.verified import VerifiedFile, VerifiedManifest
from crds.keys import model_key
from tests.unit.agent.memory import Memory
from tests.unit.agent.test_swarm import FakeExchange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.structs.exchange import Exchange
    from agent.structs.manifest import Grant

URI = "mem://m"
ORIGIN = "mem://origin"
A, B = "a" * 64, "b" * 64
MANIFEST = VerifiedManifest(
    uri=URI,
    origin=ORIGIN,
    files=(VerifiedFile("a.bin", 3, "v1", A), VerifiedFile("b.bin", 4, "v1", B)),
)
GONE = DownloadError(FailureKind.UNREACHABLE, "mem cannot be reached")


class Known(FakeExchange):
    """An exchange whose peers have a verified manifest."""

    def __init__(self, found: VerifiedManifest | None) -> None:
        super().__init__()
        self.found, self.asked = found, [""][:0]

    def manifest(self, digest: str) -> VerifiedManifest | None:
        self.asked.append(digest)
        return self.found


class Peers:
    def __init__(self, exchange: Known) -> None:
        self._exchange = exchange

    def exchange(self, _key: str, _groups: Iterable[str], _grant: Grant) -> Exchange:
        return self._exchange


def sharing(
    found: VerifiedManifest | None = MANIFEST, *, verified: str = MANIFEST.hash, namespace: str = ""
) -> Sharing:
    requesters = (Requester(namespace),)
    request = Request(model_key(URI), URI, (), requesters=requesters, verified=verified)
    return Sharing(request, Peers(Known(found)))


def listed(**options: str) -> Memory:
    return Memory({"a.bin": b"123", "b.bin": b"1234"}, **options)  # type: ignore[arg-type]


def digests(remote: Memory, found: VerifiedManifest = MANIFEST) -> list[str | None]:
    return [file.sha256 for file in sharing(found).with_digests(remote).files]


def test_digests_are_those_of_the_same_files_alone() -> None:
    assert digests(listed()) == [A, B]
    assert digests(listed(origin="mem://other")) == [None, None]
    remote = listed()
    remote.versions["a.bin"] = "v2"
    assert digests(remote) == [None, B]
    remote = listed()
    remote.contents["b.bin"] = b"longer"
    assert digests(remote) == [A, None]
    remote = listed()
    remote.contents["c.bin"] = remote.contents.pop("a.bin")
    assert digests(remote) == [B, None]
    assert digests(listed(), structs.replace(MANIFEST, uri="mem://other")) == [None, None]


def test_nobody_is_asked_for_a_manifest_that_is_not_known() -> None:
    exchange = Known(MANIFEST)
    request = Request(model_key(URI), URI, ())
    remote = listed()
    assert Sharing(request, Peers(exchange)).with_digests(remote) is remote
    assert Sharing(replace(request, verified=MANIFEST.hash), None).with_digests(remote) is remote
    assert exchange.asked == []


@pytest.mark.parametrize("kind", [FailureKind.UNREACHABLE, FailureKind.THROTTLED])
def test_listing_is_remembered_while_the_origin_is_gone(kind: FailureKind) -> None:
    mine = sharing()
    remote = mine.remembered(DownloadError(kind, "mem is away"))
    assert [(file.path, file.size, file.version, file.sha256) for file in remote.files] == [
        ("a.bin", 3, "v1", A),
        ("b.bin", 4, "v1", B),
    ]
    assert remote.origin == ORIGIN
    assert not mine.origin_asked
    with pytest.raises(DownloadError, match=r"a\.bin comes from no peer.*mem is away") as caught:
        remote.read(remote.files[0], 0, None)
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    "mine",
    [sharing(namespace="team"), sharing(verified=""), sharing(None)],
    ids=["a namespace", "no verified manifest", "no peer has it"],
)
def test_listing_is_not_remembered_for(mine: Sharing) -> None:
    with pytest.raises(DownloadError) as caught:
        mine.remembered(GONE)
    assert caught.value is GONE
    assert mine.origin_asked


@pytest.mark.parametrize("kind", [FailureKind.DENIED, FailureKind.NOT_FOUND])
def test_refusal_of_the_origin_counts(kind: FailureKind) -> None:
    with pytest.raises(DownloadError):
        sharing().remembered(DownloadError(kind, "no"))


def test_staged_bytes_by_a_verified_digest_are_dropped_without_it() -> None:
    plain = JournalFile.of(RemoteFile("a.bin", "a.bin", 3, "v1"))
    by_a, by_b = (structs.replace(plain, verified=digest) for digest in (A, B))
    assert by_a.continues_as(by_a)
    assert not by_a.continues_as(plain)
    assert not by_a.continues_as(by_b)
    # What the origin alone has sent may be checked by a digest that is found later.
    assert plain.continues_as(by_a)
    assert not plain.continues_as(structs.replace(by_a, version="v2"))
