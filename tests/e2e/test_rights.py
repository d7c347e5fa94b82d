"""Each right of the shipped RBAC is used, and a right that is missing is named.

The audit log of the API server shows both: the requests that RBAC allowed, and those it refused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from deploy.local.users import METACONTROLLER
from tests.e2e import audit, rights, scene
from tests.e2e.conftest import METACONTROLLERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.rights import Right
    from tests.e2e.scene import Scene

# The whole scene, with everything that the cluster's start and the rounds take.
pytestmark = pytest.mark.timeout(400)

USED_SECONDS = 90.0
ROUND_SECONDS = 20.0
ROUNDS = 15
# No request of a round for this long: what is missing waits for something else that is missing.
QUIET_SECONDS = 2.0

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
    stage.poke(readers=False, agents=False)
    stage.add_a_tainted_node("used")
    stage.end()
    deadline = time.monotonic() + USED_SECONDS
    expected = {r for r in _requested(stage) if (r.resource, r.verb) not in LOOKED_UP}
    while missing := expected - _used(stage):
        if time.monotonic() > deadline:
            unused = "\n".join(sorted(map(str, missing)))
            pytest.fail(f"delete these rights, which no request uses:\n{unused}")
        stage.download_again()
        time.sleep(1)
    stage.remove_tainted_nodes()
    audit.check(stage.cluster)


@pytest.mark.skipif("False")
def test_a_right_that_is_missing_is_named(stage: Scene) -> None:
    """Without any rights at first; each round gives back those whose lack was named.

    What one right is for may come only after what another is for, so it takes some rounds.
    """
    if stage.cluster.state.metacontroller is None and METACONTROLLERS[-1] != "standin":
        pytest.skip("the rights of the real Metacontroller are taken away, not the stand-in's")
    missing = _requested(stage)
    stage.end()
    for _ in range(ROUNDS):
        with _without(stage, missing):
            seen = _seen(stage)
            stage.poke(
                readers=any(r.user == METACONTROLLER.name and r.verb in READS for r in missing),
                agents=any(r.user == AGENT.name and r.verb in READS for r in missing),
            )
            named = _named(stage, missing, seen)
        if not named:
            break
        missing -= named
        if not missing:
            return
    unnamed = "\n".join(sorted(map(str, missing)))
    pytest.fail(f"nothing was refused without these rights:\n{unnamed}")
