"""The page of symptoms names reasons that exist, and each failure of a download."""

from __future__ import annotations

import re
from pathlib import Path

from agent.structs.failures import FailureKind

DOCS = Path(__file__).parents[2] / "docs"
# What Kubernetes itself says, and values of fields.
KUBERNETES = {"CreateContainerConfigError", "Lost", "None", "Pinned", "Terminating"}
# What a person meets seldom, and finds by the reason in conditions.md.
SELDOM = {"Internal", "OtherDisk", "NoHardLinks"}


def _reasons(page: str) -> set[str]:
    return set(re.findall(r"`([A-Z][a-z]+[A-Za-z]*|TLS)`", (DOCS / page).read_text()))


def test_each_reason_on_the_page_is_a_reason_of_localmodel() -> None:
    known = (
        _reasons("conditions.md") | _reasons("pod-states.md") | _reasons("agent.md") | KUBERNETES
    )
    assert _reasons("troubleshooting.md") - known == set()


def test_the_page_has_each_failure_of_a_download() -> None:
    named = _reasons("troubleshooting.md") | SELDOM
    assert {kind.value for kind in FailureKind} - named == set()
