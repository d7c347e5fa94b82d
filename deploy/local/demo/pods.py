"""The part of the demo about pods: a real node starts the same pod cold, and then warm."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import yaml

from crds.naming import CACHED_AT_ANNOTATION
from deploy.kube.kinds import CLAIMS, EVENTS, LOCAL_MODEL_NODES, PODS
from deploy.local.demo import manifests
from deploy.local.demo.files import digests
from deploy.local.demo.follow import rows
from deploy.local.demo.stage import WAIT_SECONDS
from deploy.local.errors import LocalError
from deploy.local.real import packages
from deploy.local.real.pods import first_line, lines, waiting_reason
from deploy.local.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.local.demo.stage import Stage
    from deploy.local.origin import S3Origin

NODE = "real-1"
NAME = "server"
# Of the agent of the real node: a pod must come while the download of 87 MiB goes on, also on a
# busy machine.
BYTES_PER_SECOND = "4Mi"


def missing(folder: Path) -> str:
    """What a real node of the cluster in a folder lacks, and how to get it; empty if nothing."""
    try:
        packages.require(folder, instead="")
    except LocalError as error:
        return "; ".join(filter(None, (str(error), error.todo)))
    return ""


class PodStarts:
    """A pod on a real node, cold and warm. A check that fails raises LocalError."""

    def __init__(self, stage: Stage, origin: S3Origin, model: Path, key: str) -> None:
        self._stage = stage
        self._api = stage.cluster.api
        self._origin = origin
        self._expected = digests(model)
        self._key = key
        self._copy = stage.cluster.nodes_dir / NODE / "models" / key
        self._manifest = manifests.server(NAME, NODE)
        self._created = 0.0
        # Of the cold pod: from its creation, and from the publication of its model, to its start.
        self._cold_seconds = 0.0
        self._published_seconds = 0.0

    def wait_cold(self) -> None:
        """Create the pod during the download, and show that it waits, and why."""
        with self._stage.chapter(f"Cold: a pod comes to {NODE} before the model is there"):
            wait_until(self._can_come, "claim and download to be there", seconds=WAIT_SECONDS)
            self._stage.show("server.yaml", self._manifest)
            self._created = self._create()
            wait_until(self._waits, "the pod to wait for its model", seconds=WAIT_SECONDS)
            self._stage.kubectl("get", "pod", NAME, "-n", manifests.TEAM)
            self._show_events()
            self._stage.holds("the container waits, and Events of the pod say what for")

    def start_cold(self) -> None:
        """Show that the pod has started by itself after the publication of the model."""
        with self._stage.chapter("The cold pod starts by itself when the model is published"):
            started = self._first_line()
            published = self._published()
            if started < published:
                raise LocalError("the pod's container started before its model was published")
            wait_until(self._is_woken, "the agent to tell the pod", seconds=WAIT_SECONDS)
            self._show_events()
            self._check_files()
            self._cold_seconds = started - self._created
            self._published_seconds = started - published

    def start_warm(self) -> None:
        """Create the same pod again, while the origin is stopped, and show both times."""
        with self._stage.chapter(f"Warm: the same pod again on {NODE}, with a stopped origin"):
            self._delete()
            self._stage.cluster.stop(self._origin.name)
            created = self._create()
            seconds = self._first_line() - created
            self._check_files()
            self._delete("--wait=false")
            self._origin.resume(self._stage.cluster)
            if seconds >= self._cold_seconds:
                raise LocalError(f"the warm pod took {seconds:.1f} s, no less than the cold one")
            self._stage.holds("the warm start read no byte from the origin, which did not run")
            self._stage.console.line(
                "  from the creation of the pod to its container's first line:\n"
                f"    cold  {self._cold_seconds:5.1f} s, "
                f"{self._published_seconds:.1f} s after the publication of the model\n"
                f"    warm  {seconds:5.1f} s"
            )

    def _create(self) -> float:
        """Create the pod, and return when. Not by kubectl, whose own start would count."""
        created = time.time()
        self._api.create(yaml.safe_load(self._manifest))
        return created

    def _delete(self, *flags: str) -> None:
        self._stage.kubectl("delete", "pod", "-n", manifests.TEAM, NAME, *flags)

    def _show_events(self) -> None:
        self._stage.kubectl("events", "-n", manifests.TEAM, "--for", f"pod/{NAME}")

    # The checks.

    def _can_come(self) -> bool:
        claims = {claim["metadata"]["name"] for claim in self._api.list(CLAIMS, manifests.TEAM)}
        (row,) = rows(self._api.list(LOCAL_MODEL_NODES), [NODE], self._key)
        return manifests.CLAIM in claims and row.here > 0

    def _waits(self) -> bool:
        reason = waiting_reason(self._api, NAME, manifests.TEAM)
        is_told = self._is_told("WaitingForModel", "downloading: ")
        if is_told and reason == "CreateContainerConfigError":
            return True
        if self._copy.exists():
            raise LocalError(
                f"{NODE} had the model before the pod waited for it",
                todo="try again when the machine is less busy, or with --simulated",
            )
        return False

    def _is_woken(self) -> bool:
        """Whether the agent has made kubelet try again, and said so."""
        metadata = self._api.get(PODS, NAME, manifests.TEAM)["metadata"]
        is_annotated = CACHED_AT_ANNOTATION in metadata.get("annotations", {})
        return is_annotated and self._is_told("ModelCached", "on this node now")

    def _is_told(self, reason: str, text: str) -> bool:
        return any(
            event["reason"] == reason and text in event["message"]
            for event in self._api.list(EVENTS, manifests.TEAM)
            if event["involvedObject"]["name"] == NAME
        )

    def _published(self) -> float:
        """When the model was published: its folder was renamed then, and not changed since."""
        return self._copy.stat().st_ctime

    def _first_line(self) -> float:
        """When the pod's container printed its first line."""
        return first_line(self._api, NAME, manifests.TEAM, seconds=WAIT_SECONDS).at

    def _check_files(self) -> None:
        def printed() -> list[str]:
            found = [line.text for line in lines(self._api, NAME, manifests.TEAM)]
            return found if manifests.READ in found else []

        found = wait_until(printed, "the container to read its files", seconds=WAIT_SECONDS)
        pairs = [line.split("  ./", 1) for line in found if "  ./" in line]
        read = {path: digest for digest, path in pairs}
        if read != self._expected:
            raise LocalError("the files in the container are not the origin's", detail=str(found))
        self._stage.holds(
            f"the container sees {len(read)} files, each with the origin's SHA-256, and no other"
        )
