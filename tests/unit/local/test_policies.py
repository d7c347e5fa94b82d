"""Waiting for the admission policies of an overlay."""

from __future__ import annotations

from typing import Any

from deploy.local import policies
from deploy.local.kubeapi import ApiError

NOT_SYNCED = "failed to configure binding: paramKind not yet synced to use for admission"


class _Api:
    """An API server that has one policy against two caches with one URI, in a state of it."""

    def __init__(self) -> None:
        self.state = "unknown"
        self.caches: set[str] = set()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        params: dict[str, str] | None = None,
    ) -> None:
        if body is None:
            assert method == "DELETE"
            self.caches.remove(path.rpartition("/")[2])
            return
        assert path.endswith("/localmodelcaches")
        name = body["metadata"]["name"]
        if self.state == "loading":
            raise ApiError(403, "Forbidden", f"{name} is forbidden: {NOT_SYNCED}")
        if self.state == "enforced" and self.caches - {name}:
            (first,) = self.caches
            raise ApiError(403, "Forbidden", f"LocalModelCache {first} has the same sourceModelUri")
        if name in self.caches:
            raise ApiError(409, "AlreadyExists", name)
        if not params:
            self.caches.add(name)


def test_policies_are_in_force_once_they_refuse_what_they_should_and_nothing_else() -> None:
    api = _Api()
    found = []
    for state in ("loading", "unknown", "loading", "enforced"):
        api.state = state
        found.append(policies.in_force(api))  # type: ignore[arg-type]
    assert found == [False, False, False, True]
    assert not api.caches
