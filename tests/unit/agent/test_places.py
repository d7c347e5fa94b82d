"""Nobody's origins keep the places for downloads from others."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from agent.capacity.places import EXTRA_PLACES, LAST_SECONDS, Hold, Places, had_its_time
from agent.structs.credentials import Credentials
from tests.unit.agent.servers import Handler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.agent.servers import Server
    from tests.unit.agent.world import World

LONG = Hold("slow", had_its_time=True)
GIB = 1 << 30


@pytest.mark.parametrize(
    ("elapsed", "came", "over"),
    [
        (9, 0, False),
        (11, 0, True),
        # What comes as it should is not pushed aside.
        (240, GIB, False),
        (300, GIB, True),
        # But what is large does not hold a place for hours.
        (LAST_SECONDS + 1, 1 << 40, True),
    ],
)
def test_how_long_a_download_has_its_place_to_itself(elapsed: float, came: int, over: bool) -> None:
    assert had_its_time(elapsed, came) is over


@pytest.mark.parametrize(
    ("held", "owner", "may"),
    [
        ([], "a", True),
        ([Hold("slow")], "slow", True),
        # All are taken, and not for long.
        ([Hold("slow"), Hold("slow")], "", False),
        ([LONG, Hold("b")], "", True),
        ([LONG, LONG], "", True),
        ([LONG, LONG], "a", True),
        # They had theirs.
        ([LONG, LONG], "slow", False),
        ([LONG, LONG, Hold("a", had_its_time=True)], "a", False),
        ([LONG, LONG, Hold(), Hold()], "", False),
        # What is about to end is in nobody's way.
        ([Hold("slow", wanted=False), Hold("slow", wanted=False)], "slow", True),
        # There are not endlessly many, but for the administrator.
        ([LONG] * (2 + EXTRA_PLACES), "a", False),
        ([LONG] * (2 + EXTRA_PLACES), "", True),
    ],
)
def test_who_gets_a_place(held: list[Hold], owner: str, may: bool) -> None:
    assert Places(2, held, {"x": owner}).has("x") is may


@pytest.mark.parametrize(
    ("held", "may"),
    [
        ([Hold(), Hold("b")], True),
        ([Hold(), Hold(awaited=True)], True),
        # As many as there are places: then it is as for all others.
        ([Hold(awaited=True), Hold("a", awaited=True)], False),
        # But those of other namespaces alone do not keep all of them.
        ([Hold(awaited=True), Hold("b", awaited=True)], True),
        ([Hold("b", awaited=True)] * 3, True),
        ([Hold("b", awaited=True)] * 4, False),
        # The pods of those that run have gone meanwhile.
        ([Hold()] * 3, True),
        ([Hold()] * 4, False),
        # What is about to end is in nobody's way.
        ([Hold(awaited=True, wanted=False), Hold(awaited=True)], True),
    ],
)
def test_who_gets_a_place_while_a_pod_waits(held: list[Hold], may: bool) -> None:
    assert Places(2, held, {"x": "a"}, {"x"}).has("x") is may


def test_what_pods_wait_for_takes_its_own_places() -> None:
    places = Places(1, [Hold()], awaited={"x", "y"})
    assert places.has("x")
    places.take("x")
    assert not places.has("y")


def test_what_begins_has_its_time_too() -> None:
    places = Places(1, [LONG], {"x": "", "y": "b"})
    assert places.has("x")
    places.take("x")
    assert not places.has("y")


class Drip:
    """A server of which nothing comes to an end."""

    def __init__(self, *, body: bool) -> None:
        self.body = body
        self.stopped = threading.Event()

    def __call__(self, handler: Handler, _: str) -> None:
        if self.body and handler.headers.get("Range") == "bytes=0-0":
            headers = {"Content-Range": f"bytes 0-0/{GIB}", "ETag": '"1"'}
            handler.reply(206, b"x", headers)
            return
        if self.body:
            span = handler.headers["Range"].removeprefix("bytes=")
            headers = {"Content-Range": f"bytes {span}/{GIB}", "ETag": '"1"'}
            handler.begin(206, headers | {"Connection": "close"})
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.stopped.wait(0.05):
            handler.wfile.write(b"x")


@contextmanager
def dripping(*, body: bool) -> Iterator[Server]:
    answer = Drip(body=body)
    with serving(answer) as server:
        try:
            yield server
        finally:
            answer.stopped.set()


def slow(server: Server, world: World, name: str, **fields: Any) -> Any:
    made = world.model(name, namespace="slow", **fields)
    return made.model_copy(update={"source_model_uri": f"{server.url}/{name}.bin"})


@pytest.mark.parametrize("body", [False, True])
def test_slow_origins_of_a_namespace_keep_no_place_from_others(world: World, body: bool) -> None:
    with dripping(body=body) as server:
        slow_ones = [slow(server, world, f"s{i}", priority=9) for i in range(3)]
        world.want(*slow_ones)
        world.step()
        # The most important one of all comes later.
        world.want(
            *slow_ones, world.model("a", retention="Pinned"), world.model("b", namespace="b")
        )
        world.step()
        waiting = {entry["name"]: entry for entry in world.status()["models"]}
        assert [waiting[name]["state"] for name in ("a", "s2")] == ["Pending", "Pending"]
        assert waiting["a"]["reason"] == "AwaitingPlace"
        assert "it begins by itself" in waiting["a"]["message"]
        assert "slow" not in waiting["a"]["message"]
        world.step(11)
        world.settle_until(lambda: world.states().get("a") == "Downloaded")
        world.settle_until(lambda: world.states().get("b") == "Downloaded")
        assert world.states()["s2"] == "Pending"
        # A cache that is deleted frees what it had, though its origin goes on.
        world.want(world.model("a"), world.model("b", namespace="b"))
        world.step()
        begun = time.monotonic()
        world.step(61)
        world.settle_until(lambda: not world.active())
        assert time.monotonic() - begun < 15
        assert not [one for one in threading.enumerate() if one.name.startswith("download-")]


def test_a_cache_that_is_deleted_frees_its_place_for_its_own_namespace(world: World) -> None:
    with dripping(body=False) as server:
        slow_ones = [slow(server, world, f"s{i}") for i in range(2)]
        world.want(*slow_ones)
        world.step()
        world.want(world.model("a", namespace="slow"))
        world.settle_until(lambda: world.states().get("a") == "Downloaded")
        world.step(61)
        world.settle_until(lambda: not world.active())


def test_a_model_is_not_held_by_another_ones_server(world: World) -> None:
    gate = threading.Event()

    def answer(handler: Handler, path: str) -> None:
        # Only the administrator's credentials lead to what answers.
        if handler.headers.get("X-Who") != "admin":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not gate.wait(0.05):
                handler.wfile.write(b"x")
            return
        world.web(handler, path)

    world.server.answer = answer
    headers = {"": '{"X-Who": "admin"}', "slow": '{"X-Who": "tenant"}'}
    world.credentials = lambda who: Credentials.of(
        {f"{world.server.url}-headers": headers[who.namespace]}
    )
    try:
        tenant = world.model("a", namespace="slow", service_account_name="x")
        world.want(tenant)
        world.step()
        assert world.active()
        world.want(tenant, world.model("a", service_account_name="x"))
        world.settle_until(
            lambda: "Downloaded" in {entry["state"] for entry in world.status()["models"]}
        )
    finally:
        gate.set()
