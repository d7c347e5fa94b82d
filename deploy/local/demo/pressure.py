"""The part of the demo about evictions: a group with room for three of four models."""

from __future__ import annotations

import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crds.keys import model_key
from deploy.kube.kinds import CACHES, CLAIMS, EVENTS, LOCAL_MODEL_NODES
from deploy.local.demo import manifests
from deploy.local.demo.stage import WAIT_SECONDS
from deploy.local.errors import LocalError
from deploy.local.waiting import wait_until

if TYPE_CHECKING:
    from deploy.local.demo.stage import Stage
    from deploy.local.origin import S3Origin


NODES = ("node-1", "node-2")
FIRST = ("red", "green", "blue")
NAMES = (*FIRST, "yellow")
MODEL_BYTES = 6 << 20

DOWNLOADED, EVICTED = "Downloaded", "Evicted"
# Reason of the condition Ready, by cache.
Reasons = dict[str, str]
# State of each model, by node and name.
States = dict[tuple[str, str], str]

_MODELS = 'jsonpath={range .status.models[*]}{.name}{"\\t"}{.state}{"\\t"}{.message}{"\\n"}{end}'


class Pressure:
    """Four models on two nodes with room for three. A check that fails raises LocalError."""

    def __init__(self, stage: Stage, origin: S3Origin) -> None:
        self._stage = stage
        self._api = stage.cluster.api
        self._origin = origin
        self._uris: dict[str, str] = {}

    def run(self) -> None:
        """Fill the group's limit, let a fourth model evict, and let pods restore evicted copies."""
        self._upload()
        self._fill()
        self._use()
        self._evict()
        self._bring_back()

    def _upload(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for model in NAMES:
                (folder / "weights.bin").write_bytes(secrets.token_bytes(MODEL_BYTES))
                self._uris[model] = self._origin.upload(folder, model)

    def _fill(self) -> None:
        with self._stage.chapter("Three models in a group with room for three, which may evict"):
            self._stage.kubectl("label", "node", *NODES, "disk=small")
            caches = "".join(manifests.small_cache(name, self._uris[name]) for name in FIRST)
            self._stage.apply("small.yaml", manifests.SMALL_GROUP + caches)
            self._wait("the three models", dict.fromkeys(FIRST, "ModelCached"), {})
            wait_until(self._has_claims, "the claims of the three", seconds=WAIT_SECONDS)
            self._stage.kubectl("get", "lmc,lmng")
            self._stage.holds("both nodes have copies of three models, and the claims exist")

    def _use(self) -> None:
        with self._stage.chapter("Pods use one model on each node, and green for a moment"):
            pods = (("web-1", NODES[0], "red"), ("web-2", NODES[1], "blue"))
            jobs = (("job-1", NODES[0], "green"), ("job-2", NODES[1], "green"))
            self._stage.apply("pods.yaml", "".join(manifests.pod(*one) for one in (*pods, *jobs)))
            self._stage.console.line(
                "  these nodes have no kubelet: a pod stays Pending, which counts as a use"
            )
            wait_until(self._are_used, "the agents to observe the pods", seconds=WAIT_SECONDS)
            # Agents record whole seconds: these uses must be later than the publications.
            time.sleep(1)
            self._delete_pods("job-1", "job-2")
            self._stage.holds("each model that a pod used has a lastUsedTime")

    def _evict(self) -> None:
        with self._stage.chapter("A fourth model: each node evicts the least recently used model"):
            # The publication of the fourth model must be later than these uses.
            time.sleep(1)
            self._stage.apply("yellow.yaml", manifests.small_cache("yellow", self._uris["yellow"]))
            reasons = {
                "red": "PartlyEvicted",
                "blue": "PartlyEvicted",
                "green": "ModelCached",
                "yellow": "ModelCached",
            }
            gone = {(NODES[0], "blue"): EVICTED, (NODES[1], "red"): EVICTED}
            self._wait("yellow to take the place of blue and red", reasons, gone)
            wait_until(self._eviction_is_reported, "the Event of an eviction", seconds=WAIT_SECONDS)
            self._stage.kubectl("get", "lmc")
            self._stage.kubectl("get", "lmn", NODES[0], "-o", _MODELS)
            self._stage.kubectl("get", "events", "--field-selector", "reason=Evicted")
            self._stage.holds(
                f"{NODES[0]} evicted blue and {NODES[1]} red, which no pod there ever used; "
                "the other copies stay"
            )

    def _bring_back(self) -> None:
        with self._stage.chapter("New pods use evicted models, which come back; green is evicted"):
            back = (("web-3", NODES[0], "blue"), ("web-4", NODES[1], "red"))
            self._stage.apply("back.yaml", "".join(manifests.pod(*one) for one in back))
            reasons = dict.fromkeys(NAMES, "ModelCached") | {"green": "Evicted"}
            gone = {(node, "green"): EVICTED for node in NODES}
            self._wait("blue and red to be back", reasons, gone)
            self._stage.kubectl("get", "lmc", "-o", "wide")
            self._stage.holds("red and blue are on both nodes again; green, unused longest, is not")
            self._delete_pods("web-1", "web-2", "web-3", "web-4")

    def _delete_pods(self, *names: str) -> None:
        # --force, because there is no kubelet that ends the pods.
        self._stage.kubectl("delete", "pod", "-n", manifests.TEAM, *names, "--force")

    # The checks.

    def _wait(self, what: str, reasons: Reasons, gone: States) -> None:
        """Wait until caches have these reasons, and status and disks all copies except `gone`."""
        expected = {
            (node, name): gone.get((node, name), DOWNLOADED) for node in NODES for name in reasons
        }

        def is_so() -> bool:
            return self._reasons() == reasons and self._states() == expected

        try:
            wait_until(is_so, what, seconds=WAIT_SECONDS)
        except LocalError as error:
            found = f"caches: {self._reasons()}, nodes: {self._states()}"
            raise LocalError(error.text(), detail=found) from None
        for (node, name), state in expected.items():
            if self._is_on_disk(node, name) != (state == DOWNLOADED):
                raise LocalError(f"the disk of {node} differs from its status: {name} is {state}")

    def _reasons(self) -> Reasons:
        return {
            cache["metadata"]["name"]: condition["reason"]
            for cache in self._api.list(CACHES)
            for condition in cache.get("status", {}).get("conditions", ())
            if condition["type"] == "Ready" and cache["metadata"]["name"] in NAMES
        }

    def _models(self, node: str) -> dict[str, Any]:
        models = self._api.get(LOCAL_MODEL_NODES, node).get("status", {}).get("models", ())
        return {model["name"]: model for model in models if model["name"] in NAMES}

    def _states(self) -> States:
        return {
            (node, name): model["state"]
            for node in NODES
            for name, model in self._models(node).items()
        }

    def _is_on_disk(self, node: str, name: str) -> bool:
        return (
            self._stage.cluster.nodes_dir / node / "models" / model_key(self._uris[name])
        ).exists()

    def _has_claims(self) -> bool:
        claims = self._api.list(CLAIMS, manifests.TEAM)
        return {f"{name}-small" for name in FIRST} <= {one["metadata"]["name"] for one in claims}

    def _are_used(self) -> bool:
        used = ((NODES[0], "red"), (NODES[0], "green"), (NODES[1], "blue"), (NODES[1], "green"))
        return all(self._models(node).get(name, {}).get("lastUsedTime") for node, name in used)

    def _eviction_is_reported(self) -> bool:
        events = self._api.list(EVENTS, "default")
        evicted = (event for event in events if event["reason"] == "Evicted")
        return {event["involvedObject"]["name"] for event in evicted} >= set(NODES)
