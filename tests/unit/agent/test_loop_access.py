"""A copy that caches of several namespaces share is told to each only with its own credentials."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from agent.commands.assemble import own_credentials
from agent.control.access_checks import MAX_CHECKS
from agent.sources import Sources
from agent.sources.s3 import S3Source
from agent.sources.transport import Transports
from agent.structs.credentials import CredentialRef, Credentials
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.manifest import Grant, Manifest
from agent.structs.requests import Requester
from tests.unit.agent.helpers import local_model, set_aws
from tests.unit.agent.servers import Buckets, serving
from tests.unit.agent.world import DATA, GRACE

if TYPE_CHECKING:
    from pathlib import Path

    from crds.node import LocalModel
    from tests.unit.agent.servers import Handler
    from tests.unit.agent.world import World

# By the name of the ServiceAccount: whether the origin takes what it has.
GOOD = {"a": True, "b": True, "bad": False}


@pytest.fixture
def closed(world: World) -> World:
    """A world whose origin wants a token; ServiceAccounts `a` and `b` have one."""
    web = world.web

    def answer(handler: Handler, path: str) -> None:
        if handler.headers.get("Authorization") in world_tokens:
            return web(handler, path)
        return handler.reply(401)

    world_tokens = {f"Bearer {name}" for name, good in GOOD.items() if good}
    world.server.answer = answer
    world.credentials = lambda requester: token(world, requester)
    return world


def token(world: World, requester: Requester) -> Credentials:
    if requester.credentials is None:
        return own_credentials()
    headers = {"Authorization": f"Bearer {requester.credentials.service_account}"}
    return Credentials.of({f"{world.server.url}-headers": json.dumps(headers)})


def model(world: World, namespace: str, account: str | None, **fields: Any) -> LocalModel:
    return world.model("a", namespace=namespace, service_account_name=account, **fields)


def told(world: World) -> dict[str, dict[str, Any]]:
    return {entry.get("namespace", ""): entry for entry in world.status()["models"]}


def states(world: World) -> dict[str, str]:
    return {namespace: entry["state"] for namespace, entry in told(world).items()}


def contents(world: World) -> int:
    """How often bytes of the model were asked for, beside its first one."""
    ranges = [headers.get("Range") for _, _, headers in world.server.seen]
    return sum(asked != "bytes=0-0" for asked in ranges)


def listings(world: World) -> int:
    """How often the origin was asked what the model is."""
    return len(world.server.seen) - contents(world)


def manifest(world: World) -> Manifest:
    path = world.root / ".localmodel" / world.key("a") / "manifest.json"
    return Manifest.decode(path.read_bytes())


def test_a_copy_is_told_to_another_namespace_after_its_credentials_were_accepted(
    closed: World,
) -> None:
    closed.want(model(closed, "one", "a"))
    closed.settle()
    fetched = contents(closed)
    closed.want(model(closed, "one", "a"), model(closed, "two", "b"), model(closed, "bad", "bad"))
    closed.step()
    first = next(w for w in closed.api.writes if len(w["models"]) == 3)["models"]
    assert [entry["state"] for entry in first] == ["Downloaded", "Pending", "Pending"]
    assert first[1]["reason"] == "CheckingAccess"
    assert first[1].keys().isdisjoint({"size", "hash"})
    closed.settle()
    assert states(closed) == {"one": "Downloaded", "two": "Downloaded", "bad": "Failed"}
    refused = told(closed)["bad"]
    assert (refused["reason"], refused["attempts"]) == ("Denied", 1)
    assert refused["nextRetryTime"]
    assert refused.keys().isdisjoint({"size", "hash"})
    assert contents(closed) == fetched
    assert closed.tree("a") == {"a.bin": b"a" + DATA}


def test_what_was_granted_is_not_asked_again_after_a_restart_with_a_dead_origin(
    closed: World,
) -> None:
    closed.want(model(closed, "one", "a"), model(closed, "two", "b"), model(closed, "bad", "bad"))
    closed.settle()
    assert states(closed) == {"one": "Downloaded", "two": "Downloaded", "bad": "Failed"}
    closed.server.answer = lambda handler, _: handler.reset()
    asked = listings(closed)
    closed.restart()
    closed.want(model(closed, "one", "a"), model(closed, "two", "b"))
    closed.settle()
    assert states(closed) == {"one": "Downloaded", "two": "Downloaded"}
    assert listings(closed) == asked
    # It is no answer that the origin is dead: who had no grant has none now.
    closed.want(model(closed, "bad", "bad"), model(closed, "two", "b"))
    closed.settle()
    assert states(closed) == {"bad": "Failed", "two": "Downloaded"}
    assert told(closed)["bad"]["reason"] == "Unreachable"


def test_a_refused_namespace_that_comes_first_keeps_the_model_from_nobody(closed: World) -> None:
    closed.want(model(closed, "bad", "bad"), model(closed, "two", "b"))
    closed.settle()
    assert states(closed) == {"bad": "Failed", "two": "Downloaded"}
    # Each was asked about once.
    seen = [headers["Authorization"] for _, _, headers in closed.server.seen]
    assert seen.count("Bearer bad") == 1
    assert manifest(closed).access is not None
    closed.server.answer = closed.web
    closed.step(4.9)
    closed.settle()
    assert states(closed)["bad"] == "Failed"
    closed.step(0.1)
    closed.settle()
    assert states(closed)["bad"] == "Downloaded"


def test_each_namespace_is_told_its_own_failure_while_nobody_has_the_model(closed: World) -> None:
    def by_account(requester: Requester) -> Credentials:
        if requester.namespace == "none":
            raise DownloadError(FailureKind.NOT_FOUND, "there is no such secret")
        return token(closed, requester)

    closed.credentials = by_account
    closed.want(model(closed, "bad", "bad"), model(closed, "none", "a"))
    closed.settle()
    reasons = {namespace: entry["reason"] for namespace, entry in told(closed).items()}
    assert reasons == {"bad": "Denied", "none": "NotFound"}
    events = {event.message.partition(":")[0] for event in closed.events}
    assert events == {"bad/a", "none/a"}


def test_what_is_wrong_with_the_node_is_told_to_all_after_one_try(closed: World) -> None:
    foreign = closed.root / "models" / closed.key("a")
    foreign.mkdir()
    (foreign / "file").touch()
    closed.want(model(closed, "one", "a"), model(closed, "two", "b"))
    closed.settle()
    assert {entry["reason"] for entry in told(closed).values()} == {"ForeignDirectory"}
    assert {entry["attempts"] for entry in told(closed).values()} == {1}
    (foreign / "file").unlink()
    closed.step(10)
    closed.settle()
    assert states(closed) == {"one": "Downloaded", "two": "Downloaded"}


def test_a_server_that_lies_about_the_size_is_one_requesters_failure(closed: World) -> None:
    web = closed.server.answer

    def answer(handler: Handler, path: str) -> None:
        if handler.headers.get("Authorization") != "Bearer bad":
            return web(handler, path)
        headers = {"Content-Range": f"bytes 0-0/{1 << 60}", "ETag": '"1"'}
        return handler.reply(206, b"x", headers)

    closed.server.answer = answer
    closed.want(model(closed, "bad", "bad"), model(closed, "two", "b"))
    closed.settle()
    assert states(closed) == {"bad": "Failed", "two": "Downloaded"}
    assert told(closed)["bad"]["reason"] == "NoSpace"


def test_another_version_at_the_source_is_told_and_the_copy_stays(closed: World) -> None:
    closed.want(model(closed, "one", "a"))
    closed.settle()
    closed.web.files["/a.bin"] = b"another version"
    closed.want(model(closed, "one", "a"), model(closed, "two", "b"))
    closed.settle()
    assert states(closed) == {"one": "Downloaded", "two": "Failed"}
    assert told(closed)["two"]["reason"] == "OtherVersion"
    assert "another version" in told(closed)["two"]["message"]
    assert closed.tree("a") == {"a.bin": b"a" + DATA}
    # When nobody has it any more who may, it is fetched anew for those who are left.
    closed.want(model(closed, "two", "b"))
    closed.settle()
    closed.step(5)
    closed.settle()
    assert states(closed) == {"two": "Downloaded"}
    assert closed.tree("a") == {"a.bin": b"another version"}


def test_a_copy_that_nobody_may_have_is_not_fetched_anew_by_who_is_refused(closed: World) -> None:
    closed.want(model(closed, "one", "a"))
    closed.settle()
    fetched = contents(closed)
    closed.want(model(closed, "bad", "bad"))
    closed.settle()
    closed.step(5)
    closed.settle()
    assert states(closed) == {"bad": "Failed"}
    # Claims of who is refused may lead there.
    assert closed.tree("a") is None
    assert contents(closed) == fetched
    closed.want(model(closed, "one", "a"))
    closed.settle()
    assert closed.tree("a") == {"a.bin": b"a" + DATA}
    assert contents(closed) == fetched


def test_the_administrators_cache_comes_before_a_copy_that_a_namespace_fetched(
    closed: World,
) -> None:
    closed.want(model(closed, "one", "a"))
    closed.settle()
    # The namespace's copy is what the administrator's source has, and is asked about once.
    closed.want(model(closed, "one", "a"), model(closed, "", "b"))
    closed.settle()
    assert states(closed) == {"one": "Downloaded", "": "Downloaded"}
    asked = listings(closed)
    # What one LocalModelCache may have, all may.
    closed.want(model(closed, "", "bad"))
    closed.settle()
    assert states(closed) == {"": "Downloaded"}
    assert listings(closed) == asked


def test_a_namespaces_copy_of_another_version_gives_way_to_the_administrators(
    closed: World,
) -> None:
    closed.want(model(closed, "one", "a"))
    closed.settle()
    closed.web.files["/a.bin"] = b"the true one"
    closed.want(model(closed, "one", "a"), model(closed, "", "b"))
    closed.settle()
    closed.step(5)
    closed.settle()
    assert closed.tree("a") == {"a.bin": b"the true one"}
    assert states(closed) == {"one": "Downloaded", "": "Downloaded"}


def test_other_credentials_of_a_namespace_are_asked_about_and_replace_the_former(
    closed: World,
) -> None:
    closed.want(model(closed, "one", "a"), model(closed, "two", "b"))
    closed.settle()
    closed.want(model(closed, "one", "b"), model(closed, "two", "b"))
    closed.settle()
    assert states(closed) == {"one": "Downloaded", "two": "Downloaded"}
    access = manifest(closed).access
    assert access is not None
    assert set(access.grants) == {
        Grant(namespace="one", service_account="b"),
        Grant(namespace="two", service_account="b"),
    }


def test_a_copy_whose_manifest_knows_of_no_access_is_asked_about(closed: World) -> None:
    closed.want(model(closed, "one", "a"))
    closed.settle()
    former = structs.replace(manifest(closed), access=None)
    closed.store.rewrite(former)
    closed.restart()
    asked = listings(closed)
    closed.want(model(closed, "one", "a"), model(closed, "bad", "bad"), model(closed, "", None))
    closed.settle()
    assert states(closed) == {"one": "Downloaded", "bad": "Failed", "": "Downloaded"}
    # A listing for each, and a byte for who is not refused.
    assert listings(closed) == asked + 3
    access = manifest(closed).access
    assert access is not None
    assert access.origin == closed.url
    assert set(access.grants) == {Grant(), Grant(namespace="one", service_account="a")}


def test_no_secret_is_noted(closed: World, tmp_path: Path) -> None:
    storage = {"key": "k", "parameters": {"secret_access_key": "s3cret"}}

    closed.credentials = lambda _: token(closed, Requester("", CredentialRef(service_account="a")))
    closed.want(closed.model("a", namespace="one", storage=storage))
    closed.settle()
    access = manifest(closed).access
    assert access is not None
    (grant,) = access.grants
    assert (grant.namespace, grant.storage_key) == ("one", "k")
    notes = [path.read_bytes() for path in tmp_path.rglob("*.json")]
    assert notes
    assert not any(b"s3cret" in note for note in notes)


def test_checks_of_one_namespace_do_not_hold_up_anothers(closed: World) -> None:
    gate = threading.Event()

    def slow(requester: Requester) -> Credentials:
        if requester.namespace == "slow":
            gate.wait(10)
        return token(closed, requester)

    closed.want(model(closed, "one", "a"))
    closed.settle()
    closed.credentials = slow
    closed.want(model(closed, "one", "a"), model(closed, "slow", "a"), model(closed, "two", "b"))
    try:
        closed.settle_until(lambda: states(closed).get("two") == "Downloaded")
        assert states(closed)["slow"] == "Pending"
    finally:
        gate.set()
    closed.settle()
    assert states(closed)["slow"] == "Downloaded"


def test_a_server_of_the_tenants_own_that_lists_the_same_opens_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_aws(monkeypatch, "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL")
    private = Buckets({"bucket": {"model/w": DATA}})
    with serving(private) as store, serving(Buckets(private.objects)) as own:
        servers = {"one": store, "thief": own, "two": store}

        def credentials(requester: Requester) -> Credentials:
            # The same key for all: one of them has changed the endpoint.
            return Credentials.of({"AWS_ENDPOINT_URL": servers[requester.namespace].url})

        world.credentials = credentials
        world.sources = Sources({"s3": S3Source(Transports(max_connections=2))})
        world.restart()
        entries = {name: local_model("m", "s3://bucket/model", namespace=name) for name in servers}
        world.want(entries["one"])
        world.settle()
        world.want(*entries.values())
        world.settle()
        assert states(world) == {"one": "Downloaded", "thief": "Failed", "two": "Downloaded"}
        assert told(world)["thief"]["reason"] == "OtherVersion"
        assert f"another server than {own.url}" in told(world)["thief"]["message"]
        assert store.url not in told(world)["thief"]["message"]


def test_an_answer_about_a_copy_that_is_gone_grants_nothing(closed: World) -> None:
    gate = threading.Event()

    def slow(requester: Requester) -> Credentials:
        if requester.namespace == "two":
            gate.wait(10)
        return token(closed, requester)

    closed.want(model(closed, "one", "a"))
    closed.settle()
    closed.credentials = slow
    closed.want(model(closed, "one", "a"), model(closed, "two", "b"))
    closed.step()
    closed.want()
    for _ in range(3):
        closed.step(GRACE)
    assert closed.tree("a") is None
    gate.set()
    closed.settle()
    assert closed.tree("a") is None


def test_a_check_at_a_slow_origin_ends_with_its_cache_and_holds_up_no_other(closed: World) -> None:
    answer, gate = closed.server.answer, threading.Event()

    def slow(handler: Handler, path: str) -> None:
        if handler.headers.get("Authorization") != "Bearer bad":
            answer(handler, path)
            return
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not gate.wait(0.05):
            handler.wfile.write(b"x")

    closed.want(model(closed, "one", "a"))
    closed.settle()
    closed.server.answer = slow
    hostile = [model(closed, f"slow-{number}", "bad") for number in range(12)]
    closed.want(model(closed, "one", "a"), *hostile)
    closed.step()
    assert closed.checking() == MAX_CHECKS
    try:
        # LocalModelCaches do not wait for them.
        closed.want(model(closed, "one", "a"), *hostile, model(closed, "", "b"))
        closed.settle_until(lambda: states(closed).get("") == "Downloaded")
        closed.want(model(closed, "one", "a"), model(closed, "two", "b"))
        closed.settle_until(lambda: states(closed).get("two") == "Downloaded")
        closed.settle_until(lambda: not closed.checking())
    finally:
        gate.set()
