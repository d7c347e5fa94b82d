"""The rows and panels of the dashboard, with their queries. Tests ask Prometheus each query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# What the queries select: variables of the dashboard, which `filled` fills in.
AGENTS = 'job=~"$job",node=~"$node"'
HOOKS = 'job="localmodel-hooks"'
WINDOW = "$__rate_interval"
GREEN, ORANGE, RED = "green", "orange", "red"


@dataclass(frozen=True)
class Query:
    """A question in PromQL, and the legend of its answers."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel. unit: Grafana's name of it. thresholds: colours from these values on."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["stat", "graph"] = "graph"
    stacked: bool = False
    thresholds: tuple[tuple[float, str], ...] = ()
    below: str = GREEN
    minimum: float | None = 0
    maximum: float | None = None


@dataclass(frozen=True)
class Row:
    """A titled row of panels."""

    title: str
    panels: tuple[Panel, ...]


def _agent(name: str, **labels: str) -> str:
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return f"localmodel_agent_{name}{{{AGENTS}{more}}}"


def _hook(name: str) -> str:
    return f"localmodel_hook_{name}{{{HOOKS}}}"


def _rate(series: str) -> str:
    return f"rate({series}[{WINDOW}])"


def _stat(title: str, description: str, unit: str, expr: str, **options: object) -> Panel:
    return Panel(title, description, unit, (Query(expr, title),), kind="stat", **options)  # type: ignore[arg-type]


AT_A_GLANCE = Row(
    "At a glance",
    (
        _stat(
            "Agents up",
            "Share of the agents that Prometheus reaches.",
            "percentunit",
            'avg(up{job=~"$job",node=~"$node"})',
            thresholds=((0.9, ORANGE), (1, GREEN)),
            below=RED,
            maximum=1,
        ),
        _stat(
            "Hooks up",
            "Replicas of the hooks that Prometheus reaches.",
            "none",
            f"sum(up{{{HOOKS}}})",
            thresholds=((1, GREEN),),
            below=RED,
        ),
        _stat(
            "Models on disks",
            "Published copies on all nodes, as entries of caches.",
            "none",
            f"sum({_agent('models', state='downloaded')})",
        ),
        _stat(
            "Failed models",
            "Entries that cannot be downloaded now: `kubectl get lmn` says why.",
            "none",
            f"sum({_agent('models', state='failed')})",
            thresholds=((1, RED),),
        ),
        _stat(
            "Pods that wait",
            "Pods with a container that waits for a model.",
            "none",
            f"sum({_agent('waiting_pods')})",
            thresholds=((1, ORANGE),),
        ),
        _stat(
            "Download rate",
            "Bytes that all nodes receive from origins.",
            "Bps",
            f"sum({_rate(_agent('download_bytes_total'))})",
        ),
        _stat(
            "Warm starts",
            "Pods that found their model on the node, of all that began to use one.",
            "percentunit",
            f"sum({_agent('pod_starts_total', copy='warm')}) / sum({_agent('pod_starts_total')})",
            maximum=1,
        ),
        _stat(
            "Bytes saved",
            "What pods did not download since their model was there, since the agents' start.",
            "bytes",
            f"sum({_agent('saved_bytes_total')})",
        ),
    ),
)
DISK = Row(
    "Disk",
    (
        Panel(
            "Disk used",
            "Share of the disk of the models that is taken, also by other programs.",
            "percentunit",
            (Query(f"{_agent('disk_used_bytes')} / {_agent('disk_capacity_bytes')}", "{{node}}"),),
            thresholds=((0.9, ORANGE), (0.97, RED)),
            maximum=1,
        ),
        Panel(
            "Bytes of models",
            "What published copies take on each node. The rest is of other programs, or "
            "of unfinished downloads.",
            "bytes",
            (Query(_agent("models_bytes"), "{{node}}"),),
            stacked=True,
        ),
        Panel(
            "Models by state",
            "Entries of all nodes. An evicted model comes back when a pod needs it.",
            "none",
            (Query(f"sum by (state) ({_agent('models')})", "{{state}}"),),
            stacked=True,
        ),
    ),
)
DOWNLOADS = Row(
    "Downloads",
    (
        Panel(
            "Received from origins",
            "Bytes that each node receives.",
            "Bps",
            (Query(f"sum by (node) ({_rate(_agent('download_bytes_total'))})", "{{node}}"),),
            stacked=True,
        ),
        Panel(
            "Downloads that run and wait",
            "Downloads wait for room, for one of the agent's places, or for the node's turn.",
            "none",
            (
                Query(f"sum({_agent('downloads_active')})", "running"),
                Query(f"sum({_agent('downloads_waiting')})", "waiting"),
                Query(f"sum({_agent('waiting_pods')})", "pods that wait"),
            ),
        ),
        Panel(
            "Ended downloads",
            "Attempts since the agents' start, by result.",
            "none",
            (
                Query(
                    f"sum by (result) ({_agent('downloads_total')})",
                    "{{result}}",
                ),
            ),
        ),
        Panel(
            "Failures by reason",
            "Failed attempts since the start of the agents; see docs/conditions.md.",
            "none",
            (
                Query(f"sum({_agent('download_failures_total')})", "all"),
                Query(f"sum by (reason) ({_agent('download_failures_total')}) > 0", "{{reason}}"),
            ),
        ),
        Panel(
            "Duration of downloads",
            "From the start of a model's download to its publication, all ended ones.",
            "s",
            tuple(
                Query(
                    f"histogram_quantile({share}, sum by (le) "
                    f"({_agent('download_seconds_bucket')}))",
                    name,
                )
                for share, name in ((0.5, "half are faster than"), (0.9, "9 of 10 are faster than"))
            ),
        ),
        Panel(
            "Sizes of downloaded models",
            "All ended downloads.",
            "bytes",
            tuple(
                Query(
                    f"histogram_quantile({share}, sum by (le) "
                    f"({_agent('download_size_bytes_bucket')}))",
                    name,
                )
                for share, name in (
                    (0.5, "half are smaller than"),
                    (0.9, "9 of 10 are smaller than"),
                )
            ),
        ),
    ),
)
COPIES = Row(
    "Evictions and warm starts",
    (
        Panel(
            "Evictions",
            "Copies that gave way since the agents' start. What comes back each time is churn.",
            "none",
            (
                Query(f"sum by (reason) ({_agent('evictions_total')})", "{{reason}}"),
                Query(f"sum({_agent('removals_total')})", "removed: no cache wants it"),
            ),
        ),
        Panel(
            "Evicted and received bytes",
            "Since the agents' start. Both rising together are models that evict each other.",
            "bytes",
            (
                Query(f"sum({_agent('evicted_bytes_total')})", "evicted"),
                Query(f"sum({_agent('download_bytes_total')})", "received"),
                Query(f"sum({_agent('saved_bytes_total')})", "saved by warm starts"),
            ),
        ),
        Panel(
            "Starts of pods",
            "Pods that began to use a model since the agents' start: warm, if the copy was there.",
            "none",
            (Query(f"sum by (copy) ({_agent('pod_starts_total')})", "{{copy}}"),),
            stacked=True,
        ),
        Panel(
            "Scrubbed",
            "Bytes of published copies that the agents read to find damage.",
            "Bps",
            (Query(f"sum by (node) ({_rate(_agent('scrubbed_bytes_total'))})", "{{node}}"),),
        ),
        Panel(
            "Damaged files",
            "Files found missing, damaged or unreadable since the agent's start.",
            "none",
            (Query(_agent("corrupt_files_total"), "{{node}}"),),
            thresholds=((1, RED),),
        ),
        Panel(
            "Adopted folders",
            "Folders of other programs, such as KServe's agent, that became copies without a "
            "download.",
            "none",
            (Query(f"sum by (node) ({_agent('adoptions_total')})", "{{node}}"),),
        ),
    ),
)
HEALTH = Row(
    "Health of the agents",
    (
        Panel(
            "Time since the last step",
            "The control loop takes a step each minute at least.",
            "s",
            (Query(f"time() - {_agent('last_step_timestamp_seconds')}", "{{node}}"),),
            thresholds=((150, ORANGE), (300, RED)),
        ),
        Panel(
            "Time since the last report",
            "Since the status of the LocalModelNode was last known to be up to date.",
            "s",
            (Query(f"time() - {_agent('last_report_timestamp_seconds')}", "{{node}}"),),
            thresholds=((300, ORANGE), (600, RED)),
        ),
        Panel(
            "Agents in trouble",
            "Not synced: the agent does not know its LocalModelNode or the pods of its node.",
            "none",
            (
                Query(f"count({_agent('synced')} == 0) or vector(0)", "not synced"),
                Query(f"count({_agent('disk_writable')} == 0) or vector(0)", "disk not writable"),
            ),
            thresholds=((1, RED),),
        ),
        Panel(
            "Requests to the API server",
            "By the code of the answer; none: no answer came.",
            "reqps",
            (Query(f"sum by (code) ({_rate(_agent('api_requests_total'))})", "{{code}}"),),
        ),
        Panel(
            "Time of a step",
            "How long the steps of the control loop take.",
            "s",
            tuple(
                Query(
                    f"histogram_quantile({share}, sum by (le) "
                    f"({_rate(_agent('step_seconds_bucket'))}))",
                    name,
                )
                for share, name in ((0.5, "half"), (0.99, "99 of 100"))
            ),
        ),
        Panel(
            "Memory",
            "Resident memory of each agent.",
            "bytes",
            (Query(f"process_resident_memory_bytes{{{AGENTS}}}", "{{node}}"),),
        ),
    ),
)
HOOKS_ROW = Row(
    "Hooks",
    (
        Panel(
            "Calls",
            "Calls of Metacontroller by hook.",
            "reqps",
            (Query(f"sum by (hook) ({_rate(_hook('calls_total'))})", "{{hook}}"),),
        ),
        Panel(
            "Answers by status",
            "200 has the desired state; after any other status, Metacontroller changes nothing.",
            "reqps",
            (Query(f"sum by (code) ({_rate(_hook('calls_total'))})", "{{code}}"),),
        ),
        Panel(
            "Refused and late",
            "Refused: without the right token. Late: more than half of Metacontroller's timeout.",
            "none",
            (
                Query(f"sum(increase({_hook('refused_total')}[{WINDOW}])) or vector(0)", "refused"),
                Query(f"sum(increase({_hook('late_total')}[{WINDOW}])) or vector(0)", "late"),
            ),
            thresholds=((1, ORANGE),),
        ),
        Panel(
            "Time of an answer",
            "The slowest hundredth of the answers takes longer. Without intended delays.",
            "s",
            (
                Query(
                    "histogram_quantile(0.99, sum by (hook, le) "
                    f"({_rate(_hook('work_seconds_bucket'))}))",
                    "{{hook}}",
                ),
            ),
        ),
        Panel(
            "Size of requests",
            "Average size of what Metacontroller sends, which grows with the cluster.",
            "bytes",
            (
                Query(
                    f"sum by (hook) ({_rate(_hook('request_size_bytes_sum'))})"
                    f" / sum by (hook) ({_rate(_hook('request_size_bytes_count'))})",
                    "{{hook}}",
                ),
            ),
        ),
        Panel(
            "Busy",
            "Seconds of work in each second: the CPUs that the hooks keep busy.",
            "none",
            (Query(f"sum by (hook) ({_rate(_hook('work_seconds_sum'))})", "{{hook}}"),),
            stacked=True,
        ),
    ),
)
ROWS = (AT_A_GLANCE, DISK, DOWNLOADS, COPIES, HEALTH, HOOKS_ROW)


def filled(expr: str, window: str) -> str:
    """A query for all agents, as Grafana fills it in. window: what `rate` looks back at."""
    return expr.replace("$job", "localmodel-agent").replace("$node", ".*").replace(WINDOW, window)
