"""What peers are told of one model, without a disk."""

from __future__ import annotations

import pytest

from agent.peers import shared_model
from agent.peers.shared_model import SharedCopy, SharedDownload, SharedModel, accepted
from agent.structs.exchange import SharedFile, grant_digest
from agent.structs.manifest import Access, Grant
from agent.structs.pieces import MIN_PIECE_BYTES

ADMINISTRATOR = grant_digest(Grant())
TENANT = Grant(namespace="team", service_account="sa")
A, B, C = "a" * 64, "b" * 64, "c" * 64


def file(digest: str, pieces: int = 3, path: str = "") -> SharedFile:
    return SharedFile(path or digest[0], pieces * MIN_PIECE_BYTES, digest)


def downloading(*files: SharedFile, grant: str = ADMINISTRATOR) -> SharedModel:
    model = SharedModel()
    model.begin(SharedDownload.of(grant, files, "/staging"))
    return model


def copy_of(*files: SharedFile, damaged: str = "") -> SharedCopy:
    return SharedCopy(
        {one.digest: one for one in files},
        frozenset([ADMINISTRATOR]),
        frozenset([damaged] if damaged else []),
    )


def told(model: SharedModel, after: int = 0, grant: str = ADMINISTRATOR) -> dict[str, str]:
    news = model.news(grant, after)
    assert news is not None
    return news[1]


def revision(model: SharedModel) -> int:
    news = model.news(ADMINISTRATOR, 0)
    assert news is not None
    return news[0]


def test_pieces_are_told_once() -> None:
    model = downloading(file(A), file(B))
    assert told(model) == {}
    first = revision(model)
    assert model.news(ADMINISTRATOR, first) is None
    assert model.wrote(A, 0b001)
    assert told(model, first) == {A: "1"}
    second = revision(model)
    assert not model.wrote(A, 0b001)
    assert model.news(ADMINISTRATOR, second) is None
    model.wrote(A, 0b100)
    model.wrote(B, 0b111)
    assert told(model, second) == {A: "5", B: "*"}
    assert told(model, first) == {A: "5", B: "*"}


def test_pieces_beyond_the_file_and_files_that_are_not_shared_are_ignored() -> None:
    model = downloading(file(A, pieces=2))
    model.wrote(A, 0b1110)
    assert told(model) == {A: "2"}
    assert not model.wrote(B, 1)
    assert not model.lost(B)


def test_pieces_that_are_asked_for_are_told_until_they_are_here() -> None:
    model = downloading(file(A))
    after = revision(model)
    assert model.asks(A, 0b110)
    assert not model.asks(A, 0b110)
    assert not model.asks(B, 0b1)
    assert told(model, after) == {A: "0,6"} == told(model)
    model.wrote(A, 0b010)
    assert told(model) == {A: "2,4"}
    model.asks(A, 0)
    assert told(model) == {A: "2"}
    after = revision(model)
    model.wrote(A, 0b101)
    assert told(model, after) == {A: "*"}


def test_a_file_that_starts_over_has_no_pieces() -> None:
    model = downloading(file(A))
    model.wrote(A, 0b11)
    before = revision(model)
    assert model.lost(A)
    assert told(model, before) == {A: "0"}
    assert told(model) == {}
    model.wrote(A, 0b10)
    assert told(model, before) == {A: "2"}


def test_of_files_with_the_same_content_none_is_served_before_both_are_published() -> None:
    model = downloading(file(A, path="one"), file(A, path="two"), file(B))
    assert not model.wrote(A, 1)
    model.wrote(B, 1)
    assert told(model) == {B: "1"}
    model.replace(copy_of(file(A, path="one"), file(B)))
    assert told(model) == {A: "*", B: "*"}


def test_the_end_of_a_download_is_told_as_whole_files() -> None:
    model = downloading(file(A), file(B))
    model.wrote(A, 0b1)
    before = revision(model)
    model.replace(copy_of(file(A), file(B)))
    model.end()
    assert told(model, before) == {A: "*", B: "*"}


def test_a_file_that_a_scrub_found_bad_is_taken_back() -> None:
    model = SharedModel()
    model.replace(copy_of(file(A), file(B)))
    before = revision(model)
    model.replace(copy_of(file(A), damaged=B))
    assert told(model, before) == {B: "0"}
    assert told(model) == {A: "*"}
    # Its repair downloads it again.
    model.begin(SharedDownload.of(ADMINISTRATOR, [file(B)], "/staging"))
    model.wrote(B, 0b10)
    assert told(model, before) == {B: "2"}
    model.end()
    assert told(model, before) == {B: "0"}


def test_a_revision_of_another_start_or_download_gets_all() -> None:
    one, other = downloading(file(A)), downloading(file(A))
    for model in (one, other):
        model.wrote(A, 0b1)
    after = revision(one)
    assert one.news(ADMINISTRATOR, after) is None
    assert told(other, after) == {A: "1"}
    assert told(one, after + 1) == {A: "1"}
    assert told(one, (1 << 64) - 1) == {A: "1"}


def test_a_second_download_goes_on_with_the_revisions() -> None:
    model = downloading(file(A))
    model.wrote(A, 0b111)
    after = revision(model)
    model.begin(SharedDownload.of(ADMINISTRATOR, [file(A)], "/staging"))
    assert told(model, after) == {A: "0"}
    model.wrote(A, 0b10)
    assert told(model, after) == {A: "2"}


def test_each_part_is_told_to_its_own_requesters_only() -> None:
    tenant = grant_digest(TENANT)
    model = downloading(file(A), file(C), grant=tenant)
    model.replace(copy_of(file(B)))
    model.wrote(A, 0b1)
    assert told(model) == {B: "*"}
    assert told(model, grant=tenant) == {A: "1"}
    after = revision(model)
    model.lost(A)
    assert model.news(ADMINISTRATOR, after) is None
    assert told(model, after, tenant) == {A: "0"}


def test_a_long_answer_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_model, "MAX_ANSWER", 500)
    files = [file(f"{number:064x}") for number in range(100)]
    model = SharedModel()
    model.replace(copy_of(*files))
    found: dict[str, str] = {}
    after = answers = 0
    while (news := model.news(ADMINISTRATOR, after)) is not None:
        after, part = news
        assert 0 < len(part) < 10
        found |= part
        answers += 1
        # What changes meanwhile is told later.
        if answers == 3:
            model.replace(copy_of(*files[1:], damaged=files[0].digest))
    assert found == {one.digest: "*" for one in files[1:]} | {files[0].digest: "0"}


@pytest.mark.parametrize(
    ("grants", "asker", "may"),
    [
        (None, Grant(), True),
        (None, TENANT, False),
        ([Grant(storage_key="bucket")], Grant(), True),
        ([Grant(storage_key="bucket")], TENANT, False),
        ([TENANT], Grant(), False),
        ([TENANT], TENANT, True),
        ([TENANT], Grant(namespace="team"), False),
        ([TENANT, Grant()], TENANT, True),
        ([], Grant(), False),
    ],
)
def test_grants_count_as_on_the_node_itself(
    grants: list[Grant] | None, asker: Grant, *, may: bool
) -> None:
    access = None if grants is None else Access(origin="o", listing="", grants=tuple(grants))
    assert (grant_digest(asker) in accepted(access)) is may
