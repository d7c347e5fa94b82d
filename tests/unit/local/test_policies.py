"""Waiting for the admission policies of an overlay."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.local import policies
from deploy.local.kubeapi import ApiError

REFUSED = f"ValidatingAdmissionPolicy '{policies.LAST}' denied request"
NOT_SYNCED = "failed to configure binding: paramKind not yet synced to use for admission"


class _Api:
    """Answers a cache in the short form with one refusal, one with `nodeGroups` with another."""

    def __init__(self, short: str, long: str) -> None:
        self.short = short
        self.long = long

    def request(
        self, method: str, path: str, *, body: dict[str, Any], params: dict[str, str]
    ) -> None:
        assert (method, params) == ("POST", {"dryRun": "All"})
        assert path.endswith("/localmodelcaches")
        refusal = self.short if "nodeGroup" in body["spec"] else self.long
        if refusal:
            raise ApiError(422, "Invalid", refusal)


@pytest.mark.parametrize(
    ("short", "long", "in_force"),
    [
        (REFUSED, "", True),
        ("", "", False),
        (NOT_SYNCED, NOT_SYNCED, False),
        (REFUSED, NOT_SYNCED, False),
    ],
)
def test_policies_are_in_force_once_they_refuse_and_let_pass(
    short: str, long: str, in_force: bool
) -> None:
    assert policies.in_force(_Api(short, long)) is in_force  # type: ignore[arg-type]
