from __future__ import annotations

from typing import TYPE_CHECKING

from agent.structs.credentials import CredentialRef, Credentials
from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from agent.structs.requests import Requester
    from tests.unit.agent.world import World

GOOD = CredentialRef(service_account="good")


def _only_good(requester: Requester) -> Credentials:
    if requester.credentials != GOOD:
        raise DownloadError(FailureKind.DENIED, "there is no such ServiceAccount")
    return Credentials.of({})


def test_credentials_that_are_wrong_are_told_and_nothing_is_fetched(world: World) -> None:
    world.credentials = _only_good
    world.want(world.model("a", service_account_name="bad"))
    world.settle()
    assert world.status()["models"][0]["reason"] == "Denied"
    assert world.status()["models"][0]["message"] == "there is no such ServiceAccount"
    assert world.server.seen == []


def test_other_credentials_are_another_try_at_once(world: World) -> None:
    world.credentials = _only_good
    world.want(world.model("a", service_account_name="bad"))
    world.settle()
    world.want(world.model("a", service_account_name="good"))
    world.settle()
    assert world.states() == {"a": "Downloaded"}


def test_corrected_credentials_are_used_at_the_next_try(world: World) -> None:
    world.credentials = _only_good
    world.want(world.model("a", service_account_name="bad"))
    world.settle()
    world.credentials = lambda _: Credentials.of({})
    world.step(5)
    world.settle()
    assert world.states() == {"a": "Downloaded"}
