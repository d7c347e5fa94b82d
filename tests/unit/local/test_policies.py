"""The check whether the admission policies of an overlay are enforced."""

from __future__ import annotations

from typing import Any

from deploy.kube.errors import AlreadyExistsError, ForbiddenError
from deploy.kube.kinds import CACHES, PLACEMENTS, Kind
from deploy.local import policies

NOT_SYNCED = "failed to configure binding: paramKind not yet synced to use for admission"


class _Api:
    """An API server with a policy against two caches of one URI, which may not be enforced yet."""

    def __init__(self) -> None:
        self.state = "unknown"
        self.caches: set[str] = set()

    def delete(self, kind: Kind, name: str) -> None:
        assert kind == CACHES
        self.caches.remove(name)

    def create(self, cache: dict[str, Any], *, dry_run: bool) -> None:
        assert cache["kind"] == CACHES.name
        name = cache["metadata"]["name"]
        if self.state == "loading":
            raise ForbiddenError("creating", f"{name} is forbidden: {NOT_SYNCED}", 403)
        if self.state == "enforced" and self.caches - {name}:
            (first,) = self.caches
            message = f"LocalModelCache {first} has the same sourceModelUri"
            raise ForbiddenError("creating", message, 403)
        if name in self.caches:
            raise AlreadyExistsError("creating", name, 409)
        if not dry_run:
            self.caches.add(name)


def test_policies_are_in_force_once_they_refuse_what_they_should_and_nothing_else() -> None:
    api = _Api()
    found = []
    for state in ("loading", "unknown", "loading", "enforced"):
        api.state = state
        found.append(policies.in_force(api))  # type: ignore[arg-type]
    assert found == [False, False, False, True]
    assert not api.caches


class _PodApi:
    """An API server with the policies for pods, of which some may not be enforced yet."""

    def __init__(self) -> None:
        self.mutates = self.refuses = False
        self.plans: list[str] = []

    def apply(self, plan: dict[str, Any], *, manager: str) -> None:
        assert manager
        self.plans = [plan["metadata"]["name"]]

    def delete(self, kind: Kind, name: str) -> None:
        assert kind == PLACEMENTS
        self.plans.remove(name)

    def create(self, pod: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        assert dry_run
        (model,) = pod["metadata"]["labels"].values()
        claims = "localmodel.serving.kserve.io/claims"
        if model in self.plans and self.mutates:
            return {"metadata": {"annotations": {claims: f"{model}={model}-{self.plans[0]}"}}}
        if self.refuses:
            raise ForbiddenError("creating", f"there is no model {model} for pods", 422)
        return {"metadata": {}}


def test_the_policies_for_pods_are_in_force_once_one_mounts_and_the_other_refuses() -> None:
    api = _PodApi()
    found = []
    for api.mutates, api.refuses in ((False, False), (False, True), (True, False), (True, True)):
        found.append(policies.for_pods_in_force(api))  # type: ignore[arg-type]
    assert found == [False, False, False, True]
    assert not api.plans
