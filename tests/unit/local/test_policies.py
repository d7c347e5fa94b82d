"""The check whether the admission policies of an overlay are enforced."""

from __future__ import annotations

from typing import Any

from deploy.kube.errors import AlreadyExistsError, ForbiddenError
from deploy.kube.kinds import CACHES, Kind
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
