from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from msgspec import structs

from agent.structs.credentials import CredentialRef
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.grants import (
    Granted,
    check_same,
    first_access,
    grant_for,
    is_same_copy,
    with_grant,
)
from agent.structs.manifest import Manifest, ManifestFile, make_manifest
from agent.structs.remote import RemoteFile
from agent.structs.requests import Requester

URI = "s3://bucket/model"
ADMIN = Requester()
ACCOUNT = CredentialRef(service_account="reader")
KEY = CredentialRef(storage_key="k", parameters=(("region", "r"), ("secret", "s3cret")))
ONE, TWO = Requester("one", ACCOUNT), Requester("two", ACCOUNT)


@dataclass(frozen=True)
class Listing:
    """What a source tells of a model."""

    files: tuple[RemoteFile, ...]
    origin: str = "https://store"


WEIGHTS = RemoteFile("w", "model/w", 5, "v1")
REMOTE = Listing((WEIGHTS, RemoteFile("config", "model/config", 2, "v1")))


def copy_of(remote: Listing, requester: Requester = ONE) -> Manifest:
    files = [
        ManifestFile(path=file.path, size=file.size or 0, version=file.version)
        for file in remote.files
    ]
    return make_manifest(URI, files, (), first_access(remote, requester))


def test_who_fetched_a_copy_may_have_it_and_nobody_else() -> None:
    access = copy_of(REMOTE).access
    assert ONE in Granted(access)
    for other in (TWO, Requester("one"), Requester("one", KEY), ADMIN, Requester("", ACCOUNT)):
        assert other not in Granted(access)


def test_what_one_cluster_cache_may_have_all_may_and_no_namespace() -> None:
    access = copy_of(REMOTE, ADMIN).access
    assert Requester("", KEY) in Granted(access)
    assert Requester("one") not in Granted(access)


def test_a_copy_of_which_nothing_is_known_is_the_administrators() -> None:
    assert Requester("", KEY) in Granted(None)
    assert ONE not in Granted(None)
    unknown = structs.replace(copy_of(REMOTE), access=None)
    granted = with_grant(unknown, "https://store", ONE, [ONE])
    assert ONE in Granted(granted.access)
    assert ADMIN in Granted(granted.access)
    check_same(unknown, REMOTE, ONE)


@pytest.mark.parametrize("other", [KEY, replace(KEY, parameters=(("region", "x"),)), None])
def test_parameters_count_and_are_noted_as_a_digest(other: CredentialRef | None) -> None:
    grant = grant_for(Requester("one", KEY))
    assert b"s3cret" not in grant.encode()
    assert (grant == grant_for(Requester("one", other))) is (other == KEY)


def test_a_grant_takes_the_place_of_what_its_namespace_no_longer_names() -> None:
    former, kept = Requester("one", KEY), Requester("one")
    manifest = copy_of(REMOTE, former)
    manifest = with_grant(manifest, "https://store", kept, [former, kept])
    manifest = with_grant(manifest, "https://store", TWO, [former, kept, TWO])
    manifest = with_grant(manifest, "https://store", ONE, [ONE, kept])
    assert [who in Granted(manifest.access) for who in (ONE, kept, former, TWO)] == [
        True,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("remote", "text"),
    [
        (replace(REMOTE, origin="https://elsewhere"), "from another server than https://elsewhere"),
        (replace(REMOTE, files=(WEIGHTS,)), "another version"),
        (replace(REMOTE, files=(replace(WEIGHTS, size=6), REMOTE.files[1])), "another version"),
        (
            replace(REMOTE, files=(replace(WEIGHTS, version="2"), REMOTE.files[1])),
            "another version",
        ),
        (replace(REMOTE, files=(replace(WEIGHTS, path="v"), REMOTE.files[1])), "another version"),
    ],
)
def test_what_is_not_the_same_version_of_the_same_files_of_one_server(
    remote: Listing, text: str
) -> None:
    with pytest.raises(DownloadError, match=text) as caught:
        check_same(copy_of(REMOTE), remote, TWO)
    assert caught.value.kind is FailureKind.OTHER_VERSION


def test_an_order_of_files_and_an_archives_members_change_nothing() -> None:
    check_same(copy_of(REMOTE), replace(REMOTE, files=REMOTE.files[::-1]), TWO)
    archive = Listing((RemoteFile("model.tar.gz", "model.tar.gz", 9, "v1"),))
    unpacked = make_manifest(
        URI, [ManifestFile(path="w", size=100)], (), first_access(archive, ONE)
    )
    check_same(unpacked, archive, TWO)


def test_digests_and_grants_make_no_other_copy() -> None:
    manifest = copy_of(REMOTE)
    assert is_same_copy(manifest, with_grant(manifest, "https://store", TWO, ()))
    assert not is_same_copy(manifest, copy_of(replace(REMOTE, origin="https://elsewhere")))
    assert not is_same_copy(manifest, copy_of(replace(REMOTE, files=(WEIGHTS,))))
