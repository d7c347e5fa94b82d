"""Each flag, setting, metric, condition, reason, Event and alert is where a person looks it up.

And each one that these pages have exists in the code.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.cluster import startup_taint
from agent.commands import metrics as agent_metrics
from agent.control import reasons as agent_reasons
from agent.control.disk_shared import DISK_SHARED
from agent.control.status import DISK_READY, FOREIGN_DIRECTORIES, READY
from agent.sources import SCHEMES
from agent.structs.failures import FailureKind
from agent.structs.sizes import EvictionReason
from crds.kinds import KINDS
from crds.states import ModelState
from deploy.monitoring.rules import rule_groups
from deploy.reference.__main__ import pages
from deploy.takeover.console import A_PERSON_FIRST, FAILED, INTERRUPTED, OK, USAGE
from deploy.takeover.main import main as takeover_main
from deploy.takeover.uninstall import main as uninstall_main
from hooks import reasons
from hooks.settings import VARIABLES

TREE = Path(__file__).parents[2]
DOCS = TREE / "docs"

HOOK_TYPES = {
    *(reasons.READY, reasons.ADMITTED, reasons.SIZE_AS_DECLARED),
    *(reasons.CLAIMS_BOUND, reasons.OVER_LIMIT, reasons.REMOVED),
}
HOOK_REASONS = {v for name, v in vars(reasons).items() if name.isupper()} - HOOK_TYPES
AGENT_TYPES = {READY, DISK_READY, DISK_SHARED, FOREIGN_DIRECTORIES}
AGENT_REASONS = {
    value
    for name, value in vars(agent_reasons).items()
    if name.isupper() and isinstance(value, str)
}
FAILURES = {kind.value for kind in FailureKind}
EVICTIONS = {reason.value for reason in EvictionReason}
# Emitted about what is wrong with the whole disk.
DISK_FAILURES = {FailureKind.READ_ONLY, FailureKind.UNAVAILABLE, FailureKind.OTHER_DISK}


def text(page: str) -> str:
    return (DOCS / page).read_text()


def section(page: str, title: str) -> str:
    """The part of a page below a title, until the next title of that level or a higher one."""
    level, _, _ = title.partition(" ")
    _, found, rest = text(page).partition(f"\n{title}\n")
    assert found, f"docs/{page} has no {title}"
    return re.split(f"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(part: str) -> list[list[str]]:
    """The cells of each row of the tables, without their heads."""
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line, after in zip(lines, [*lines[1:], ""], strict=True)
        if not line.startswith("| ---") and not after.startswith("| ---")
    ]


def ticked(cell: str) -> set[str]:
    return set(re.findall(r"`([A-Za-z0-9]+)`", cell))


def emitted() -> set[str]:
    """The reasons with which the agent's code emits Events about objects."""
    code = "\n".join(file.read_text() for file in sorted((TREE / "agent").rglob("*.py")))
    calls = re.findall(r"(?:_emit|NodeEvent)\(\s*(?:[\w.]+, )*reasons\.([A-Z_]+)", code)
    named = {getattr(agent_reasons, name) for name in calls}
    return named | set(agent_reasons.NO_ROOM) | DISK_FAILURES


def test_the_condition_types_of_hooks_and_agent_are_those_on_the_page() -> None:
    """In the first column of the tables, above which is the kind of the object."""
    of_cache = rows(section("conditions.md", "## LocalModelCache and LocalModelNamespaceCache"))
    of_group = rows(section("conditions.md", "## LocalModelNodeGroup"))
    hooks = {kind for row in of_cache + of_group for kind in row[0].split(", ")}
    assert hooks == HOOK_TYPES
    of_node = section("conditions.md", "## LocalModelNode").partition("These reasons")[0]
    assert {row[0] for row in rows(of_node)} == AGENT_TYPES


def test_each_reason_of_the_hooks_is_on_the_page_and_no_other() -> None:
    page = text("conditions.md")
    assert {reason for reason in HOOK_REASONS if f"`{reason}`" not in page} == set()
    parts = (
        section("conditions.md", "## LocalModelCache and LocalModelNamespaceCache"),
        section("conditions.md", "## LocalModelNodeGroup"),
    )
    documented = {reason for part in parts for row in rows(part) for reason in ticked(row[1])}
    assert documented - HOOK_REASONS == set()
    assert len(documented) > 30


def test_each_reason_of_the_agent_is_on_the_page_and_no_other() -> None:
    """Of the LocalModelNode's conditions and entries. Those of Events alone have their own page."""
    part = section("conditions.md", "## LocalModelNode")
    events = section("agent.md", "### Events")
    lists = set(re.findall(r"^- `([A-Za-z]+)`: ", part, re.MULTILINE))
    documented = lists.union(*(ticked(row[0] if len(row) == 3 else row[1]) for row in rows(part)))
    known = AGENT_REASONS | FAILURES | EVICTIONS
    assert documented - known == set()
    only_events = emitted() - documented
    assert known - documented - only_events == set()
    assert {reason for reason in only_events if f"`{reason}`" not in events} == set()


def test_the_events_of_the_agent_are_those_on_the_page() -> None:
    part = section("agent.md", "### Events")
    documented = set().union(*(ticked(row[0]) for row in rows(part)))
    assert documented == emitted()
    for reason in (startup_taint.KEPT, startup_taint.REMOVED):
        assert f"`{reason}`" in part
        assert reason in text("new-nodes.md")


def test_the_references_of_flags_and_metrics_are_those_of_the_programs() -> None:
    for path, content in pages().items():
        assert (TREE / path).read_text() == content, "run `make generate`"


def test_the_agents_metrics_and_their_labels_are_those_on_its_page() -> None:
    part = section("agent.md", "### Metrics")
    metrics = " ".join(row[0] for row in rows(part) if len(row) == 3)
    names = re.findall(r"`([a-z_]+)(?:\{[a-z,]+\})?`", metrics)
    reference = re.findall(r"`localmodel_agent_([a-z_]+)`", text("metrics.md"))
    assert set(names) == set(reference)
    values = {row[0]: ticked(row[1]) for row in rows(part) if len(row) == 2}
    assert values["`state`"] == {state.value.lower() for state in ModelState}
    assert values["`scheme`"] == SCHEMES | {agent_metrics.OTHER}
    assert values["`result`"] == set(agent_metrics.RESULTS)
    assert values["`reason` of failures"] == FAILURES
    assert values["`reason` of evictions"] == EVICTIONS


def test_every_setting_of_the_hooks_is_in_the_reference() -> None:
    variables = set(
        re.findall('= "(LOCALMODEL_[A-Z_]+)"', (TREE / "hooks/settings.py").read_text())
    )
    assert variables == set(VARIABLES)


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    """tests/unit/deploy/test_alerts.py compares what they say."""
    alerts = {rule["alert"] for group in rule_groups() for rule in group["rules"]}
    assert set(re.findall(r"^### (\w+)$", text("runbooks.md"), re.MULTILINE)) == alerts
    # Other pages name alerts too.
    named = {
        name
        for page in DOCS.glob("*.md")
        for name in re.findall(r"`(LocalModel[A-Z]\w+)`", page.read_text())
    }
    assert named - alerts - {one.name for one in KINDS} == set()


@pytest.mark.parametrize(
    ("program", "page"), [(takeover_main, "kserve.md"), (uninstall_main, "install.md")]
)
def test_every_flag_and_exit_code_of_a_command_is_on_its_page(
    capsys: pytest.CaptureFixture[str], program: object, page: str
) -> None:
    assert callable(program)
    with pytest.raises(SystemExit):
        program(["--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help", "--version"}
    assert len(flags) > 5
    assert {flag for flag in flags if f"`{flag}" not in text(page)} == set()
    for code in (OK, FAILED, USAGE, A_PERSON_FIRST, INTERRUPTED):
        assert f"| {code} |" in text(page)
