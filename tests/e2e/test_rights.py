"""Each right of the shipped RBAC is used, and a right that is missing is named.

The audit log of the API server shows both: the requests that RBAC allowed, and those it refused.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agent.structs.credentials import DEFAULT_NAMESPACE
from deploy.local.users import AGENT, METACONTROLLER
from tests.e2e import audit, rights, scene
from tests.e2e.conftest import METACONTROLLERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.rights import Right
    from tests.e2e.scene import Scene

# Includes the start of a cluster, and some 20 restarts of Metacontroller.
pytestmark = pytest.mark.timeout(900)

# Metacontroller takes up to a minute to retry what failed.
USED_SECONDS = 300.0
ROUND_SECONDS = 90.0
ROUNDS = 30
# No request of a round for this long: what is missing waits for something else that is missing.
QUIET_SECONDS = 1.0

# What the API server looks up while Metacontroller writes children, on some clusters.
LOOKED_UP = {
    ("localmodelcaches/finalizers", "update"),
    ("localmodelnamespacecaches/finalizers", "update"),
    ("localmodelnodegroups/finalizers", "update"),
    ("nodes/finalizers", "update"),
    ("localmodelplacements", "delete"),
    ("localmodelnodes", "delete"),
}
# A request to kubelets, which ask the API server whether an agent may send it.
KUBELETS = {("nodes/configz", "get")}
READS = {"get", "list", "watch"}
# The stand-in follows no CRDs and keeps no revisions, writes no Events, and reads a token once.
STANDIN_LACKS = {
    ("customresourcedefinitions", "list"),
    ("customresourcedefinitions", "watch"),
    ("controllerrevisions", "list"),
    ("controllerrevisions", "watch"),
    ("events", "create"),
    ("events", "patch"),
    ("secrets", "watch"),
}


@pytest.fixture(scope="module", params=METACONTROLLERS)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp(f"rights-{request.param}")
    with scene.running(folder / "local", request.param) as found:
        yield found


def _requested(stage: Scene) -> set[Right]:
    """The rights that a request of this Metacontroller or an agent needs."""
    standin = stage.cluster.state.metacontroller is None
    return {
        right
        for right in rights.granted(*rights.FILES)
        if (right.resource, right.verb) not in KUBELETS
        and not (
            standin
            and right.user == METACONTROLLER.name
            and (right.resource, right.verb) in STANDIN_LACKS
        )
    }


def _used(stage: Scene) -> set[Right]:
    seen = audit.used(audit.calls(stage.cluster))
    return {
        r for r in rights.granted(*rights.FILES) if (r.role, r.verb, r.group, r.resource) in seen
    }


def test_every_right_is_used(stage: Scene) -> None:
    stage.poke_metacontroller()
    stage.poke_agents()
    stage.end()
    deadline = time.monotonic() + USED_SECONDS
    expected = {r for r in _requested(stage) if (r.resource, r.verb) not in LOOKED_UP}
    while missing := expected - _used(stage):
        if time.monotonic() > deadline:
            unused = "\n".join(sorted(map(str, missing)))
            pytest.fail(f"delete these rights, which no request uses:\n{unused}")
        stage.download_again()
        stage.orphan()
        time.sleep(1)
    stage.remove_tainted_nodes()
    audit.check(stage.cluster)


def test_an_agent_says_which_right_it_lacks(stage: Scene) -> None:
    lacking = {r for r in rights.granted(*rights.FILES) if r.namespace == DEFAULT_NAMESPACE}
    _grant_all_but(stage, lacking)
    try:
        stage.fetch_with_credentials("lacking")

        def message() -> str:
            return str(stage.world.report(scene.NODE, "s3://lacking/model").get("message", ""))

        stage.world.until(
            lambda: "a Role in that namespace with the verb get on serviceaccounts" in message(),
            "the status to say which right is missing",
        )
    finally:
        _grant_all_but(stage, set())
        stage.forget("lacking")


@pytest.mark.parametrize("user", [AGENT.name, METACONTROLLER.name], ids=["agent", "metacontroller"])
def test_a_missing_right_is_named(stage: Scene, user: str) -> None:
    """Without any rights at first; each round grants again those whose lack was named.

    What one right is for may come only after what another is for, so it takes some rounds.
    """
    if stage.cluster.state.metacontroller is None and METACONTROLLERS[-1] != "standin":
        pytest.skip("the rights of the real Metacontroller are taken away, not the stand-in's")
    missing = {right for right in _requested(stage) if right.user == user}
    poke = stage.poke_agents if user == AGENT.name else stage.poke_metacontroller
    again = stage.download_again if user == AGENT.name else stage.orphan
    # Not by the number of calls: the log is rotated, and the oldest calls go.
    start = datetime.now(UTC)
    try:
        for _ in range(ROUNDS):
            _grant_all_but(stage, missing)
            poke(restart=any(right.verb in READS for right in missing))
            named = _named(stage, missing, start, again)
            missing -= named
            if not (named and missing):
                break
    finally:
        stage.remove_tainted_nodes()
        _grant_all_but(stage, set())
    unnamed = "\n".join(sorted(map(str, missing)))
    assert not missing, f"no request was refused without these rights:\n{unnamed}"


def _grant_all_but(stage: Scene, missing: set[Right]) -> None:
    every = rights.granted(*rights.FILES)
    kept = [right for right in every if right not in missing]
    roles = {(right.role, right.namespace) for right in every}
    for role, namespace in roles:
        stage.world.make(rights.role_with(role, namespace, kept))
    # The API server reads a whole role: all of its rights change at the same time.
    for right in {(right.role, right in missing): right for right in every}.values():
        stage.world.until(partial(_is_right, stage, right, right not in missing), str(right))


def _is_right(stage: Scene, right: Right, expected: bool) -> bool:
    asked = audit.Refusal(right.user, right.verb, right.group, right.resource)
    return audit.is_granted(stage.cluster, asked, right.namespace) == expected


def _named(
    stage: Scene, missing: set[Right], start: datetime, again: Callable[[], None]
) -> set[Right]:
    """The missing rights that refused requests name, once no request names a further one."""
    found: set[Right] = set()
    deadline = time.monotonic() + ROUND_SECONDS
    quiet = 0.0
    while time.monotonic() < deadline and not (found and time.monotonic() > quiet):
        refused = audit.calls(stage.cluster, refused=True)
        refusals = {call.refusal for call in refused if call.received >= start}
        now = {
            right
            for right in missing
            if audit.Refusal(right.user, right.verb, right.group, right.resource) in refusals
        }
        if now != found:
            found, quiet = now, time.monotonic() + QUIET_SECONDS
        again()
        time.sleep(0.5)
    return found
