"""The alerts fire on what they are for, stay quiet on normal work, and end by themselves.

Prometheus' own `promtool test rules` evaluates them, on series of days where the real causes of
tests/e2e/test_alerts.py take minutes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from deploy.local.layout import CHECKOUT
from deploy.monitoring.rules import RULES, rule_groups, shortened

if TYPE_CHECKING:
    from pathlib import Path

RUNBOOKS = CHECKOUT / "docs" / "runbooks.md"
AGENT = '{job="localmodel-agent",node="n",instance="i"}'
HOUR = 60
DAY = 24 * HOUR
GB = 10**9
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs Debian's package prometheus: make packages"
)


def agent(name: str, labels: str = "") -> str:
    """A series of the agent of node n."""
    return f"localmodel_agent_{name}{AGENT[:-1]}{',' if labels else ''}{labels}}}"


def hooks(name: str, labels: str) -> str:
    """A series of a replica of the hooks."""
    return f'localmodel_hook_{name}{{job="localmodel-hooks",instance="h",{labels}}}'


@dataclass(frozen=True)
class Case:
    """Series by minute, and the minutes at which the alert fires and does not."""

    what: str
    alert: str
    series: dict[str, str]
    firing: tuple[int, ...] = ()
    quiet: tuple[int, ...] = field(default=())


UP = 'up{job="localmodel-agent",node="n",instance="i"}'
WANTED = (
    'kube_daemonset_status_desired_number_scheduled{namespace="localmodel",'
    'daemonset="localmodel-agent"}'
)
HOOKS_UP = 'up{job="localmodel-hooks",instance="h"}'
RECEIVED = agent("download_bytes_total", 'scheme="s3"')
FROM_PEERS = agent("peer_received_bytes_total", 'scheme="s3"')
EVICTED = agent("evicted_bytes_total", 'reason="MadeRoom"')
SYNC = 'hook="/nodes/sync"'
# Two models of 700 GB that evict each other four times, and the bytes that they receive.
IN_TURNS = {
    agent("models_bytes"): f"{700 * GB}x{4 * DAY}",
    EVICTED: f"0x180 {700 * GB}x180 {1400 * GB}x180 {2100 * GB}x180 {2800 * GB}x{3 * DAY}",
}
AGAIN_AND_AGAIN = f"0+{700 * GB // 180}x720 {2800 * GB}x{3 * DAY}"

CASES = (
    Case(
        "an agent is down and comes back",
        "LocalModelAgentDown",
        {UP: "1x4 0x15 1x10"},
        firing=(16, 19),
        quiet=(10, 21),
    ),
    Case("an agent restarts", "LocalModelAgentDown", {UP: "1x4 0x4 1x30"}, quiet=(9, 30)),
    Case(
        "no agent was ever scraped",
        "LocalModelAgentsAbsent",
        {HOOKS_UP: "1x30"},
        firing=(10,),
        quiet=(5,),
    ),
    Case(
        "all agents are down",
        "LocalModelAgentsAbsent",
        {UP: "1x4 0x20 1x5"},
        firing=(16,),
        quiet=(4, 26),
    ),
    Case(
        "the targets of all agents are gone",
        "LocalModelAgentsAbsent",
        {UP: "1x4 stale"},
        firing=(16,),
        quiet=(4,),
    ),
    Case(
        "a pool of nodes that is scaled to none, and back",
        "LocalModelAgentsAbsent",
        {UP: "1x4 stale", WANTED: "1x4 0x40 1x30"},
        firing=(56, 70),
        quiet=(4, 20, 44, 50),
    ),
    Case(
        "the DaemonSet wants agents of which none is scraped",
        "LocalModelAgentsAbsent",
        {UP: "1x4 stale", WANTED: "3x30"},
        firing=(16, 30),
        quiet=(4,),
    ),
    Case(
        "a DaemonSet's pod waits for its start",
        "LocalModelAgentMissing",
        {
            'kube_daemonset_status_number_unavailable{namespace="localmodel",'
            'daemonset="localmodel-agent"}': "0x9 1x40 0x5"
        },
        firing=(41, 49),
        quiet=(9, 30, 51),
    ),
    Case(
        "an agent that crashes each ten minutes",
        "LocalModelAgentRestarting",
        {
            'process_start_time_seconds{job="localmodel-agent",node="n"}': (
                "1x9 2x9 3x9 4x9 5x9 6x80"
            )
        },
        firing=(45, 55),
        quiet=(20, 120),
    ),
    Case(
        "a loop that stops, and moves again",
        "LocalModelAgentStuck",
        {agent("last_step_timestamp_seconds"): "0+60x10 600x29 2400+60x20"},
        firing=(26, 39),
        quiet=(10, 20, 41),
    ),
    Case(
        "a step of four minutes",
        "LocalModelAgentStuck",
        {agent("last_step_timestamp_seconds"): "0+60x10 600x3 840+60x20"},
        quiet=(10, 14, 30),
    ),
    Case(
        "an agent that may not list pods",
        "LocalModelAgentNotSynced",
        {agent("synced"): "1x4 0x20 1x5"},
        firing=(21,),
        quiet=(15, 26),
    ),
    Case(
        "reports fail, and succeed again",
        "LocalModelAgentNotReporting",
        {agent("last_report_timestamp_seconds"): "0+60x10 600x29 2400+60x20"},
        firing=(26, 39),
        quiet=(10, 20, 41),
    ),
    Case(
        "each request is refused",
        "LocalModelAgentApiErrors",
        {agent("api_requests_total", 'code="403"'): "0+2x40 80x30"},
        firing=(25, 40),
        quiet=(15, 60),
    ),
    Case(
        "the writes of one status are refused, every ten seconds",
        "LocalModelAgentApiErrors",
        {
            agent("api_requests_total", 'code="200"'): "0+10x60",
            agent("api_requests_total", 'code="403"'): "0x9 0+6x50",
        },
        firing=(35, 59),
        quiet=(20,),
    ),
    Case(
        "one request in ten minutes is throttled, and a connection breaks off",
        "LocalModelAgentApiErrors",
        {
            agent("api_requests_total", 'code="429"'): "0x9 "
            + " ".join(f"{n}x9" for n in range(1, 30)),
            agent("api_requests_total", 'code="none"'): "0x4 "
            + " ".join(f"{2 * n}x9" for n in range(1, 30)),
        },
        quiet=(30, 60, 90, 200),
    ),
    Case(
        "the API server is away for five minutes",
        "LocalModelAgentApiErrors",
        {agent("api_requests_total", 'code="none"'): "0x9 0+6x5 30x60"},
        quiet=(12, 16, 25, 35),
    ),
    Case(
        "requests for objects that are not there, and conflicts",
        "LocalModelAgentApiErrors",
        {
            agent("api_requests_total", 'code="404"'): "0+5x90",
            agent("api_requests_total", 'code="409"'): "0+5x90",
            agent("api_requests_total", 'code="200"'): "0+5x90",
        },
        quiet=(30, 60, 90),
    ),
    Case(
        "a disk turns read-only and is mounted anew",
        "LocalModelDiskNotWritable",
        {agent("disk_writable"): "1x4 0x10 1x5"},
        firing=(11,),
        quiet=(8, 16),
    ),
    Case(
        "a disk fills up",
        "LocalModelDiskFull",
        {
            agent("disk_capacity_bytes"): f"{1000 * GB}x300",
            agent("disk_available_bytes"): f"{100 * GB}x60 {20 * GB}x120 {100 * GB}x60",
        },
        firing=(130, 180),
        quiet=(60, 110, 190),
    ),
    Case(
        "a damaged file",
        "LocalModelCorruptFiles",
        {agent("corrupt_files_total"): f"0x60 1x{2 * DAY}"},
        firing=(70, 1000),
        quiet=(59, 61 + DAY + 15),
    ),
    Case(
        "damage that an agent finds at its start",
        "LocalModelCorruptFiles",
        {agent("corrupt_files_total"): f"_x60 1x{2 * DAY}"},
        firing=(70, 1000),
        quiet=(59, 61 + DAY + 15),
    ),
    Case(
        "a model that fails for hours, with tries between",
        "LocalModelModelsFailing",
        {agent("models", 'state="failed"'): "0x9 " + "1x4 0x9 " * 12 + "0x120"},
        firing=(75, 150),
        quiet=(60, 240),
    ),
    Case(
        "a model whose second try succeeds",
        "LocalModelModelsFailing",
        {agent("models", 'state="failed"'): "0x9 1x4 0x120"},
        quiet=(12, 20, 70, 90),
    ),
    Case(
        "a download that receives nothing",
        "LocalModelDownloadStalled",
        {
            agent("downloads_active"): "0x9 1x180 0x60",
            RECEIVED: f"0x9 0+{3 * GB}x9 {27 * GB}x300",
        },
        firing=(160, 185),
        quiet=(60, 200),
    ),
    Case(
        "a model without a single byte",
        "LocalModelDownloadStalled",
        {agent("downloads_active"): "1x180"},
        firing=(61,),
        quiet=(59,),
    ),
    Case(
        "700 GB at 25 MB a second",
        "LocalModelDownloadStalled",
        {agent("downloads_active"): "1x470 0x60", RECEIVED: f"0+{25 * 60 * 10**6}x470"},
        quiet=(30, 60, 240, 480),
    ),
    Case(
        "700 GB from other nodes",
        "LocalModelDownloadStalled",
        {
            agent("downloads_active"): "1x470 0x60",
            RECEIVED: f"{GB}x470",
            FROM_PEERS: f"0+{25 * 60 * 10**6}x470",
        },
        quiet=(30, 60, 240, 480),
    ),
    *(
        Case(
            f"two models of 700 GB {sent}take turns on a disk for one",
            "LocalModelEvictionChurn",
            IN_TURNS | {series: AGAIN_AND_AGAIN},
            firing=(800, 1400),
            quiet=(180, 2400),
        )
        for sent, series in (("from other nodes ", FROM_PEERS), ("", RECEIVED))
    ),
    Case(
        "all models are replaced once",
        "LocalModelEvictionChurn",
        {
            agent("models_bytes"): f"{700 * GB}x{2 * DAY}",
            EVICTED: f"0x180 {700 * GB}x{2 * DAY}",
            RECEIVED: f"0+{700 * GB // 180}x360 {1400 * GB}x{2 * DAY}",
        },
        quiet=(100, 200, 400, 1400),
    ),
    Case(
        "pods wait, and nothing is downloaded",
        "LocalModelPodsWaiting",
        {
            agent("waiting_pods"): "0x9 2x90 0x10",
            RECEIVED: f"0+{GB}x20 {20 * GB}x200",
        },
        firing=(90,),
        quiet=(60, 101),
    ),
    Case(
        "pods wait where nothing was ever downloaded",
        "LocalModelPodsWaiting",
        {agent("waiting_pods"): "0x9 1x90"},
        firing=(45,),
        quiet=(30,),
    ),
    Case(
        "pods wait while a folder of 700 GB is adopted for two hours",
        "LocalModelPodsWaiting",
        {
            agent("waiting_pods"): "0x9 1x135 0x60",
            agent("downloads_active"): "0x9 1x120 0x75",
            RECEIVED: f"{GB}x205",
        },
        quiet=(30, 60, 120, 140, 150, 200),
    ),
    Case(
        "pods wait for a model that fails each five minutes at once",
        "LocalModelPodsWaiting",
        {agent("waiting_pods"): "0x9 1x90", agent("downloads_active"): "0x9 " + "1 0x3 " * 18},
        firing=(45, 90),
        quiet=(30,),
    ),
    Case(
        "pods wait while their model of 700 GB is downloaded",
        "LocalModelPodsWaiting",
        {agent("waiting_pods"): "1x240", RECEIVED: f"0+{3 * GB}x240"},
        quiet=(60, 120, 240),
    ),
    Case(
        "pods wait for seven hours",
        "LocalModelPodsWaitingLong",
        {agent("waiting_pods"): f"1x{7 * HOUR} 0x10"},
        firing=(6 * HOUR + 1,),
        quiet=(5 * HOUR, 7 * HOUR + 3),
    ),
    Case(
        "a replica of the hooks is down",
        "LocalModelHooksDown",
        {HOOKS_UP: "1x4 0x20 1x5"},
        firing=(21,),
        quiet=(15, 26),
    ),
    Case(
        "all replicas are down",
        "LocalModelHooksUnavailable",
        {HOOKS_UP: "1x4 0x20 1x5"},
        firing=(11,),
        quiet=(8, 26),
    ),
    Case("hooks that nobody scrapes", "LocalModelHooksUnavailable", {UP: "1x9"}, firing=(6,)),
    Case(
        "Metacontroller stops",
        "LocalModelHooksNotCalled",
        {
            HOOKS_UP: "1x90",
            hooks("calls_total", f'{SYNC},code="200"'): "0+3x20 60x30 60+3x40",
        },
        firing=(41, 50),
        quiet=(20, 35, 54),
    ),
    Case(
        "hooks that were never called",
        "LocalModelHooksNotCalled",
        {HOOKS_UP: "1x90"},
        firing=(11,),
        quiet=(9,),
    ),
    Case(
        "each call is refused",
        "LocalModelHooksNotCalled",
        {HOOKS_UP: "1x90", hooks("refused_total", SYNC): "0+3x90"},
        firing=(11,),
    ),
    Case(
        "a hook cannot handle an object",
        "LocalModelHooksFailing",
        {hooks("calls_total", f'{SYNC},code="422"'): "0x9 0+1x40 40x30"},
        firing=(30, 49),
        quiet=(20, 60),
    ),
    Case(
        "a hook fails once",
        "LocalModelHooksFailing",
        {hooks("calls_total", f'{SYNC},code="500"'): "0x9 1x3 10x60"},
        quiet=(12, 20, 40),
    ),
    Case(
        "a wrong token",
        "LocalModelHooksRefusing",
        {hooks("refused_total", SYNC): "0x9 0+4x30 120x30"},
        firing=(25, 39),
        quiet=(15, 50),
    ),
    Case(
        "every second answer is late",
        "LocalModelHooksSlow",
        {
            hooks("calls_total", f'{SYNC},code="200"'): "0+4x120",
            hooks("late_total", SYNC): "0x9 0+2x50 100x60",
        },
        firing=(40, 59),
        quiet=(25, 80),
    ),
    Case(
        "one answer in a hundred is late",
        "LocalModelHooksSlow",
        {
            hooks("calls_total", f'{SYNC},code="200"'): "0+100x120",
            hooks("late_total", SYNC): "0+1x120",
        },
        quiet=(30, 60, 90),
    ),
)
ALERTS = [rule for group in rule_groups() for rule in group["rules"]]
NAMES = [rule["alert"] for rule in ALERTS]


def _promtool(*command: object) -> None:
    argv = ["promtool", *map(str, command)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _test(case: Case) -> dict[str, Any]:
    fires = [{"labels": "{}", "value": 1}]
    expected = [(minute, fires) for minute in case.firing]
    expected += [(minute, []) for minute in case.quiet]
    return {
        "name": case.what,
        "interval": "1m",
        "input_series": [{"series": k, "values": v} for k, v in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})',
                "eval_time": f"{minute}m",
                "exp_samples": samples,
            }
            for minute, samples in expected
        ],
    }


@needs_promtool
@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_an_alert_fires_and_ends(rule: dict[str, Any], tmp_path: Path) -> None:
    rules, tests = tmp_path / "rules.yaml", tmp_path / "tests.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "alert", "rules": [rule]}]}))
    cases = [case for case in CASES if case.alert == rule["alert"]]
    # Days by minutes take seconds.
    last = max(minute for case in cases for minute in (*case.firing, *case.quiet))
    content = {
        "rule_files": [str(rules)],
        "evaluation_interval": "5m" if last > DAY else "1m",
        "tests": [_test(case) for case in cases],
    }
    tests.write_text(yaml.safe_dump(content))
    _promtool("test", "rules", tests)


@needs_promtool
def test_promtool_has_nothing_against_the_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": rule_groups()}))
    _promtool("check", "rules", "--lint-fatal", rules)


def test_shorter_times_keep_the_rest_of_a_rule() -> None:
    rule = {"alert": "A", "expr": "rate(a[1d]) > 10e3 unless b offset 1h", "for": "10m"}
    aged = {"alert": "B", "expr": "time() - last_seconds > 300", "for": "5m"}
    (made,) = shortened([{"name": "g", "rules": [rule, aged]}], {"B": 10}, 120)
    assert made["rules"] == [
        {"alert": "A", "expr": "rate(a[720000ms]) > 10e3 unless b offset 30000ms", "for": "5000ms"},
        {"alert": "B", "expr": "time() - last_seconds > 30.000", "for": "30000ms"},
    ]
    assert rule["for"] == "10m"


def test_each_alert_has_a_case_that_fires() -> None:
    assert {case.alert for case in CASES if case.firing} == set(NAMES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    name, notes = rule["alert"], rule["annotations"]
    assert name.startswith("LocalModel")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert notes["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
    assert notes["summary"].endswith((".", "}}."))
    assert len(notes["description"].split()) > 20


def test_each_alert_has_a_runbook_with_its_parts() -> None:
    sections = re.split(r"^### ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    found = {text.partition("\n")[0].strip(): text for text in sections}
    assert list(found) == NAMES
    for name, text in found.items():
        for part in ("**Meaning.**", "**What users notice.**", "**Look.**", "**Do.**"):
            assert part in text, f"{name} lacks {part}"
        (rule,) = (one for one in ALERTS if one["alert"] == name)
        assert f"Severity: {rule['labels']['severity']}" in text, name
    assert RULES.is_file()
