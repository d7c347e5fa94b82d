"""Debian's Prometheus beside a local cluster: it scrapes agents and hooks, and evaluates alerts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests
import yaml

from deploy.local.errors import LocalError
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.process import Process, write_atomically
from deploy.local.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.local.cluster import Cluster

NAME = "prometheus"
PACKAGE = "prometheus"
START_SECONDS = 30.0
# Of the data on the disk, whichever comes first.
KEPT_SECONDS, KEPT_BYTES = 86400, 256 << 20
ASK_SECONDS = 30.0


def missing() -> str:
    """What this machine lacks for Prometheus, and how to get it; empty if nothing."""
    if shutil.which(NAME):
        return ""
    return f"there is no prometheus program (Debian's package {PACKAGE}): make packages, as root"


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus of one cluster, on a port of its own. every: seconds between two scrapes."""

    every: float = 5.0
    port: int = field(default_factory=lambda: free_ports(1)[0])

    @property
    def url(self) -> str:
        """URL of the server and of its own page."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self, cluster: Cluster, groups: Sequence[dict[str, Any]]) -> None:
        """Start it with these groups of rules, and wait until it answers.

        Raises LocalError, also where the program is missing.
        """
        if not cluster.is_running():
            raise LocalError(f"no cluster runs in {cluster.root}", todo="make up")
        lacks = missing()
        if lacks:
            raise LocalError(lacks)
        folder = cluster.layout.targets.parent
        folder.mkdir(exist_ok=True)
        write_atomically(folder / "rules.yml", yaml.safe_dump({"groups": list(groups)}))
        write_atomically(folder / "prometheus.yml", yaml.safe_dump(self._config(cluster)))
        argv = (
            *(NAME, f"--config.file={folder / 'prometheus.yml'}"),
            f"--web.listen-address={LOOPBACK}:{self.port}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--storage.tsdb.retention.time={KEPT_SECONDS}s",
            f"--storage.tsdb.retention.size={KEPT_BYTES}B",
            "--log.level=warn",
        )
        cluster.run(NAME, Process(argv, cwd=str(folder), order=5))
        cluster.processes.wait("Prometheus", self._is_ready, seconds=START_SECONDS, needs=[NAME])

    def _config(self, cluster: Cluster) -> dict[str, Any]:
        every = f"{round(self.every * 1000)}ms"
        return {
            "global": {
                "scrape_interval": every,
                "scrape_timeout": every,
                "evaluation_interval": every,
            },
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {
                    "job_name": "localmodel",
                    "file_sd_configs": [{"files": [str(cluster.layout.targets)]}],
                }
            ],
        }

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """The series of a query now, each with `metric` and `value`."""
        return self._result("query", query=expr)

    def over(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a query over a time (seconds since 1970), with `metric` and `values`."""
        return self._result("query_range", query=expr, start=start, end=end, step=step)

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing, each with `state`, `labels` and `annotations`."""
        found: list[dict[str, Any]] = self._ask("alerts")["alerts"]
        return found

    def firing(self, name: str, **labels: str) -> dict[str, Any] | None:
        """An alert of this name and with these labels that fires; None if there is none."""
        wanted = {"alertname": name, **labels}.items()
        found = (one for one in self.alerts() if one["state"] == "firing")
        return next((one for one in found if wanted <= one["labels"].items()), None)

    def wait_up(self, count: int, seconds: float) -> None:
        """Wait until this many targets have been scraped."""
        wait_until(
            lambda: len(self.instant("up == 1")) == count,
            f"{count} targets of Prometheus to be up",
            seconds=seconds,
        )

    def _result(self, path: str, **parameters: object) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask(path, **parameters)["result"]
        return found

    def _ask(self, path: str, **parameters: object) -> dict[str, Any]:
        with requests.Session() as session:
            # A proxy of the environment must not get requests for loopback.
            session.trust_env = False
            answer = session.get(
                f"{self.url}/api/v1/{path}",
                params={key: str(value) for key, value in parameters.items()},
                timeout=ASK_SECONDS,
            )
        body = answer.json()
        if body["status"] != "success":
            raise LocalError(f"Prometheus refuses {path}: {body['error']}")
        data: dict[str, Any] = body["data"]
        return data

    def _is_ready(self) -> bool:
        try:
            with requests.Session() as session:
                session.trust_env = False
                return session.get(f"{self.url}/-/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False
