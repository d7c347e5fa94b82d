from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.structs.credentials import CredentialRef
from agent.structs.failures import FailureKind
from crds.keys import model_key
from crds.models import ModelStorage
from tests.unit.agent.helpers import local_model
from tests.unit.agent.rows import wanted

if TYPE_CHECKING:
    from crds.node import LocalModel

URI = "s3://bucket/model"
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def test_one_uri_is_one_request_in_the_order_of_the_list() -> None:
    asked = wanted(
        local_model("a", URI),
        local_model("b", "s3://bucket/other"),
        local_model("a", URI, namespace="team"),
    ).requests
    assert list(asked) == [model_key(URI), model_key("s3://bucket/other")]
    assert [(c.namespace, c.name) for c in asked[model_key(URI)].caches] == [
        ("", "a"),
        ("team", "a"),
    ]


@pytest.mark.parametrize(
    ("entries", "accepted", "refused"),
    [
        ([("", None)], [ONE, TWO], []),
        ([("", ONE)], [ONE], [TWO]),
        # A namespace can neither switch a LocalModelCache's hash off, nor widen it …
        ([("", ONE), ("team", None)], [ONE], [TWO]),
        ([("", ONE), ("team", TWO)], [ONE], [TWO]),
        # … nor keep its model from being published.
        ([("", None), ("team", TWO)], [ONE, TWO], []),
        # Where none of them comes first, each hash holds.
        ([("team", ONE), ("other", None)], [ONE], [TWO]),
        ([("team", ONE), ("other", ONE)], [ONE], [TWO]),
        ([("team", ONE), ("other", TWO)], [], [ONE, TWO]),
    ],
)
def test_which_hashes_may_be_published_where_caches_share_a_folder(
    entries: list[tuple[str, str | None]], accepted: list[str], refused: list[str]
) -> None:
    asked = [local_model("m", URI, namespace=namespace, hash=h) for namespace, h in entries]
    (request,) = wanted(*asked).requests.values()
    assert all(request.accepts(value) for value in accepted)
    assert not any(request.accepts(value) for value in refused)


@pytest.mark.parametrize(
    ("entries", "verified"),
    [
        ([("", "")], ""),
        ([("", ONE)], ONE),
        ([("", ""), ("", ONE)], ONE),
        # What a namespace's nodes agree on says nothing of what a LocalModelCache downloads.
        ([("", ""), ("team", TWO)], ""),
        ([("", ONE), ("team", TWO)], ONE),
        ([("team", TWO)], TWO),
    ],
)
def test_whose_verified_manifest_counts_where_caches_share_a_folder(
    entries: list[tuple[str, str]], verified: str
) -> None:
    asked = [
        local_model(
            f"m{number}",
            URI,
            namespace=namespace,
            **({"verified_manifest": manifest} if manifest else {}),
        )
        for number, (namespace, manifest) in enumerate(entries)
    ]
    (request,) = wanted(*asked).requests.values()
    assert request.verified == verified


def _owned(
    namespace: str, precedence: int, *, chooses: bool = False, **fields: object
) -> LocalModel:
    storage = ModelStorage(key="k", parameters={"endpoint_url": "http://own"} if chooses else {})
    return local_model(
        "m", URI, namespace=namespace, precedence=precedence, storage=storage, **fields
    )


@pytest.mark.parametrize(
    ("entries", "deciding"),
    [
        # Both lead to the same server.
        ([_owned("old", 0), _owned("young", 1)], {"old", "young"}),
        # Claims of the oldest may be there already.
        ([_owned("old", 0), _owned("young", 1, chooses=True)], {"old"}),
        ([_owned("old", 0, chooses=True), _owned("young", 1)], {"old"}),
        ([_owned("old", 0), _owned("young", 2, chooses=True), _owned("b", 1)], {"old", "b"}),
        # Of those that a node lists, whoever else there is.
        ([_owned("young", 2), _owned("younger", 3, chooses=True)], {"young"}),
        ([_owned("alone", 5, chooses=True)], {"alone"}),
        ([_owned("", 0), _owned("old", 1), _owned("young", 2)], {""}),
        # Of a hook that does not tell the order yet.
        ([_owned("", 0), _owned("old", 0)], {""}),
    ],
)
def test_whose_sources_fill_a_folder(entries: list[LocalModel], deciding: set[str]) -> None:
    for order in (entries, entries[::-1]):
        (request,) = wanted(*order).requests.values()
        assert {one.namespace for one in request.deciding} == deciding
        assert request.by(request.requesters[-1]).deciding == request.requesters[-1:]


def test_what_counts_is_the_word_of_those_who_fill_the_folder() -> None:
    old = _owned("old", 0, hash=ONE, priority=1, model_size="1Gi")
    young = _owned("young", 1, chooses=True, hash=TWO, priority=9, model_size="9Gi")
    (request,) = wanted(young, old).requests.values()
    assert (request.expected, request.priority, request.size) == (frozenset({ONE}), 1, 1 << 30)


@pytest.mark.parametrize(
    ("uri", "fields", "kind"),
    [
        ("file:///srv/m", {"namespace": "team"}, FailureKind.DENIED),
        ("FILE:///srv/m", {"namespace": "team"}, FailureKind.DENIED),
    ],
)
def test_refused_entries_are_wanted_but_not_downloaded(
    uri: str, fields: dict[str, object], kind: FailureKind
) -> None:
    entry = local_model("m", uri, **fields)
    asked = wanted(entry)
    error = asked.entries[0].refusal
    assert error is not None
    assert error.kind is kind
    assert asked.requests == {}
    assert asked.wishes[entry.key].caches


def test_refused_entry_does_not_stop_another_with_the_same_uri() -> None:
    uri = "file:///srv/m"
    entries = [local_model("a", uri, namespace="team"), local_model("b", uri)]
    (request,) = wanted(*entries).requests.values()
    assert [cache.name for cache in request.caches] == ["b"]


def test_file_of_a_cluster_cache_is_not_refused_here() -> None:
    assert wanted(local_model("m", "file:///srv/m")).entries[0].refusal is None


KEY = ModelStorage(key="k", parameters={"region": "r", "bucket": "b"})
KEY_REF = CredentialRef(storage_key="k", parameters=(("bucket", "b"), ("region", "r")))


@pytest.mark.parametrize(
    ("fields", "ref"),
    [
        ({}, None),
        ({"service_account_name": "sa"}, CredentialRef(service_account="sa")),
        ({"storage": KEY}, KEY_REF),
        ({"storage": KEY, "service_account_name": "sa"}, KEY_REF),
        ({"storage": ModelStorage()}, CredentialRef(service_account="default")),
        # Parameters count only with a key.
        (
            {"storage": ModelStorage(parameters={"region": "r"}), "service_account_name": "sa"},
            CredentialRef(service_account="sa"),
        ),
        (
            {"storage": ModelStorage(key="", parameters={"region": "r"})},
            CredentialRef(service_account="default"),
        ),
    ],
)
def test_what_names_the_credentials(fields: dict[str, object], ref: CredentialRef | None) -> None:
    (request,) = wanted(local_model("m", URI, **fields)).requests.values()
    assert request.requester.credentials == ref


@pytest.mark.parametrize(
    ("entries", "account"),
    [
        ([("", "one"), ("", "two")], "one"),
        ([("team", "one"), ("", "two")], "two"),
        ([("team", "one"), ("", "")], ""),
        ([("team", "one"), ("other", "two")], "one"),
    ],
)
def test_whose_credentials_count_where_caches_share_a_folder(
    entries: list[tuple[str, str]], account: str
) -> None:
    asked = [
        local_model("m", URI, namespace=namespace, service_account_name=name or None)
        for namespace, name in entries
    ]
    (request,) = wanted(*asked).requests.values()
    assert request.requester.credentials == (
        CredentialRef(service_account=account) if account else None
    )


@pytest.mark.parametrize(
    ("entries", "waiting", "is_suspended"),
    [
        ([("", None), ("team", None)], [], False),
        ([("", False), ("team", True)], ["team"], False),
        ([("", True), ("team", True)], ["", "team"], True),
        # Whoever begins with one entry begins with all.
        ([("team", True), ("team", None)], [], False),
    ],
)
def test_who_waits_where_caches_share_a_folder(
    entries: list[tuple[str, bool | None]], waiting: list[str], is_suspended: bool
) -> None:
    asked = [local_model("m", URI, namespace=name, suspend=suspend) for name, suspend in entries]
    (request,) = wanted(*asked).requests.values()
    assert sorted(one.namespace for one in request.suspended) == waiting
    assert request.is_suspended is is_suspended


def test_parameters_are_not_shown() -> None:
    assert "region" not in repr(KEY_REF)
