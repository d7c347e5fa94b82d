"""Servers that send a download elsewhere, and what may go there with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.structs.failures import FailureKind
from tests.unit.agent import hostile
from tests.unit.agent.hostile import DATA, Attempt, Site, secret_uri
from tests.unit.agent.servers import Handler, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.disk.store import Store

pytestmark = pytest.mark.usefixtures("small_steps")
small_steps = hostile.small_steps

# {} is the port of the other server.
OTHERS = ["http://127.0.0.1:{}/real.bin", "http://localhost:{}/real.bin", "//localhost:{}/real.bin"]


def to(location: str, status: int = 302) -> Callable[[Handler, str], None]:
    def answer(handler: Handler, _: str) -> None:
        handler.reply(status, headers={"Location": location})

    return answer


@pytest.mark.parametrize("location", OTHERS)
@pytest.mark.parametrize("status", [302, 307])
def test_no_secret_goes_to_another_host(store: Store, location: str, status: int) -> None:
    with (
        serving(Site()) as other,
        serving(to(location.format(other.server_port), status)) as server,
    ):
        Attempt(store, secret_uri(server)).succeeds({"m.bin": DATA})
    assert {"Authorization" in headers for _, _, headers in server.seen} == {True}
    assert other.seen
    for method, path, headers in other.seen:
        assert (method, path) == ("GET", "/real.bin")
        assert not {"authorization", "cookie", "referer"} & {name.lower() for name in headers}
        assert "s3cret" not in str(headers)


def test_the_same_host_gets_what_it_had(store: Store) -> None:
    made = Site()

    def answer(handler: Handler, path: str) -> None:
        if path == "/real.bin":
            made(handler, path)
        else:
            handler.reply(302, headers={"Location": "/real.bin"})

    with serving(answer) as server:
        Attempt(store, secret_uri(server)).succeeds({"m.bin": DATA})
    real = [headers for _, path, headers in server.seen if path == "/real.bin"]
    assert {"Authorization" in headers for headers in real} == {True}
    assert "Referer" not in real[0]


def test_a_redirect_in_circles_is_told(store: Store) -> None:
    with serving(to("/m.bin?X-Amz-Signature=s3cret")) as server:
        Attempt(store, secret_uri(server)).fails(
            FailureKind.UNSUPPORTED,
            f"{server.url}/m.bin?… redirects in circles",
            "check sourceModelUri",
        )
    assert len(server.seen) < 40


def test_two_servers_that_send_to_each_other_are_told(store: Store) -> None:
    places: list[str] = []

    def answer(handler: Handler, path: str) -> None:
        other = places[places[0].endswith(f":{handler.server.server_port}")]  # type: ignore[attr-defined]
        handler.reply(302, headers={"Location": f"{other}{path}"})

    with serving(answer) as one, serving(answer) as two:
        places += [one.url, two.url]
        Attempt(store, secret_uri(one)).fails(FailureKind.UNSUPPORTED, "redirects in circles")


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:a9fe:a9fe]"])
def test_a_metadata_service_is_neither_asked_nor_redirected_to(store: Store, host: str) -> None:
    uri = f"http://{host}/latest/m.bin"
    Attempt(store, uri).fails(FailureKind.DENIED, "which the agent does not fetch from")
    with serving(to(uri)) as server:
        Attempt(store, secret_uri(server)).fails(FailureKind.DENIED, "give another sourceModelUri")
        # Not in the middle of a download either.
        made = Site()
        made.act = lambda _made, handler, _span, number: number > 3 and _send(handler, uri)
        server.answer = made
        Attempt(store, secret_uri(server)).fails(FailureKind.DENIED, "give another sourceModelUri")


def _send(handler: Handler, location: str) -> bool:
    handler.reply(302, headers={"Location": location})
    return True


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/m.bin", "http://[::1"])
def test_a_redirect_to_what_is_no_web_server_is_told(store: Store, location: str) -> None:
    with serving(to(location)) as server:
        Attempt(store, secret_uri(server)).fails(FailureKind.UNSUPPORTED, f"{server.url}/m.bin?…")
