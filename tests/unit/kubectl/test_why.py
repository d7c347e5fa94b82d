"""`why` names the true cause, in the words of the conditions and the agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.control.reasons import EVICTION_REQUESTED
from agent.structs.failures import FailureKind
from agent.structs.sizes import EvictionReason
from deploy.kubectl import reasons
from deploy.kubectl.details import Details
from deploy.kubectl.links import LinkState
from deploy.kubectl.why import why
from tests.unit.kubectl.objects import (
    GIB,
    URI,
    ago,
    cache,
    cluster,
    condition,
    entry,
    group,
    local_model_node,
    managed,
    node,
    placement,
    report,
)

if TYPE_CHECKING:
    from deploy.kubectl.links import Chain, Link
    from deploy.kubectl.snapshot import Snapshot

LLAMA = ("", "llama")
NOT_READY = condition("Ready", "False", "DownloadFailed")


def cause(snapshot: Snapshot, name: str = "", details: Details | None = None) -> Link:
    chain = why(snapshot, LLAMA, name, details or Details())
    assert chain.cause is not None, chain
    return chain.cause


def told(link: Link) -> tuple[str, str, str]:
    return (link.name, link.state.value, link.reason)


def names(chain: Chain) -> list[str]:
    return [link.name for link in chain.links]


def test_all_is_well() -> None:
    chain = why(cluster(), LLAMA)
    assert (chain.state, chain.cause, chain.node) == (LinkState.OK, None, "node-1")
    assert chain.states == {"available": 2}
    assert names(chain)[-3:] == ["copy", "cache ready", "claim"]
    assert why(cluster(), LLAMA, "node-2").state is LinkState.OK


def test_each_reason_of_an_agent_has_a_link() -> None:
    assert set(reasons.FAILURES) == {kind.value for kind in FailureKind}
    assert set(reasons.EVICTIONS) == {reason.value for reason in EvictionReason}


@pytest.mark.parametrize("kind", list(FailureKind))
def test_a_failure_is_named_in_the_words_of_the_agent(kind: FailureKind) -> None:
    failed = report(
        "Failed", reason=kind.value, message="it is so", attempts=2, nextRetryTime=ago(-40)
    )
    found = cause(cluster(cache(NOT_READY), local_model_node("node-2", failed)))
    meaning = reasons.FAILURES[kind.value]
    assert told(found) == (meaning.link, meaning.state.value, kind.value)
    assert found.words == "it is so"
    assert found.next.startswith("2 tries failed; the agent tries again in 40 s")
    assert found.since == ago(600)


def test_an_event_says_since_when_a_download_fails() -> None:
    failed = report("Failed", reason="NotFound", message="nothing there")
    events = (
        {"message": "llama: NotFound: nothing there", "eventTime": ago(50), "reason": "x"},
        {"message": "other: NotFound: nothing there", "eventTime": ago(90), "reason": "x"},
    )
    snapshot = cluster(cache(NOT_READY), local_model_node("node-1", failed))
    assert cause(snapshot, details=Details(events=events)).since == ago(50)


@pytest.mark.parametrize("reason", [*reasons.WAITS, "Tomorrows"])
def test_what_a_model_waits_for(reason: str) -> None:
    waiting = report("Pending", reason=reason, message="it is so")
    found = cause(cluster(cache(NOT_READY), local_model_node("node-1", waiting)))
    meaning = reasons.WAITS.get(reason, reasons.OTHER_WAIT)
    assert told(found) == (meaning.link, meaning.state.value, reason)
    assert found.words == "it is so"


def test_an_evicted_model_comes_back() -> None:
    evicted = report("Evicted", reason="MadeRoom", message="to make room for phi")
    found = cause(cluster(local_model_node("node-1", evicted)), "node-1")
    assert told(found) == ("room", "waiting", "MadeRoom")
    assert "comes back" in found.next


def test_a_copy_that_waits_to_be_evicted() -> None:
    asked = report(
        reason=EVICTION_REQUESTED, message="its eviction was requested at T, and waits: pods use it"
    )
    chain = why(cluster(local_model_node("node-1", asked)), LLAMA, "node-1")
    (copy,) = [link for link in chain.links if link.name == "copy"]
    assert (chain.state, copy.reason) == (LinkState.OK, "EvictionRequested")
    assert copy.words.endswith("verified; its eviction was requested at T, and waits: pods use it")
    assert "evict --undo" in copy.next


def test_a_download_says_rate_and_remaining_time() -> None:
    running = report("Downloading", size=GIB, downloadedBytes=GIB // 4, bytesPerSecond=GIB // 400)
    found = cause(cluster(cache(NOT_READY), local_model_node("node-1", running)))
    assert told(found) == ("download", "waiting", "Downloading")
    assert found.words == "25% (256Mi of 1Gi, 2.6Mi/s, about 5 min left)"
    assert found.next == f"the copy is published at about {ago(-300)}"


def test_a_suspended_entry_awaits_its_turn_before_its_agent_says_so() -> None:
    suspended = local_model_node(
        "node-1", report("Pending"), entries=[entry(nodeGroup="gpu", suspend=True)]
    )
    found = cause(cluster(cache(NOT_READY), suspended))
    assert told(found)[:2] == ("turn", "waiting")
    assert "maxConcurrentNodes" in found.next


def test_the_links_before_the_cause_are_there_and_none_after_it() -> None:
    failed = report("Failed", reason="Unreachable", message="no answer")
    chain = why(cluster(cache(NOT_READY), local_model_node("node-1", failed)), LLAMA)
    assert names(chain) == [
        *("crds", "cache", "controller", "group", "admitted", "plan", "node", "entry", "agent"),
        *("disk", "turn", "room", "source", "claim"),
    ]


@pytest.mark.parametrize(
    "reason", ["StorageLimitExceeded", "ModelTooLarge", "DuplicateSourceModelUri", "GroupTooLarge"]
)
def test_a_cache_that_is_not_admitted(reason: str) -> None:
    refused = condition("Admitted", "False", reason, "no room")
    found = cause(cluster(cache(NOT_READY, refused)))
    assert told(found) == ("admitted", "broken", reason)
    assert (found.words, found.since) == ("no room", ago(600))


def test_a_plan_that_is_not_there_yet() -> None:
    pending = condition("Admitted", "Unknown", "PlanPending")
    assert told(cause(cluster(cache(NOT_READY, pending)))) == ("admitted", "waiting", "PlanPending")
    unlisted = cluster(placement(entry("other")))
    assert told(cause(unlisted)) == ("plan", "waiting", "PlanPending")


@pytest.mark.parametrize(
    ("reason", "state"),
    [("NoNodes", "broken"), ("LocalPathMismatch", "broken"), ("FindingNodes", "waiting")],
)
def test_a_group_that_is_not_ready(reason: str, state: str) -> None:
    found = cause(cluster(group(condition("Ready", "False", reason, "so it is"))))
    assert told(found) == ("group", state, reason)
    assert found.words == "LocalModelNodeGroup gpu: so it is"


def test_a_group_that_is_being_deleted() -> None:
    deleted = group()
    deleted["metadata"]["deletionTimestamp"] = ago(30)
    assert told(cause(cluster(deleted)))[:2] == ("group", "waiting")


def test_a_cache_that_is_ready_although_some_nodes_evicted_the_model() -> None:
    partly = condition("Ready", "True", "PartlyEvicted", "on 1 of 2 nodes; evicted on node-1")
    evicted = local_model_node("node-1", report("Evicted", reason="MadeRoom", message="for phi"))
    chain = why(cluster(cache(partly), evicted), LLAMA)
    assert (chain.state, chain.node) == (LinkState.OK, "node-2")
    assert chain.links[-2].words == "on 1 of 2 nodes; evicted on node-1"


def test_a_group_that_is_missing_or_hidden() -> None:
    found = cause(cluster(without=("LocalModelNodeGroup",)))
    assert told(found) == ("group", "broken", "NodeGroupNotFound")
    hidden = {"LocalModelNodeGroup": "groups is forbidden"}
    chain = why(cluster(without=("LocalModelNodeGroup",), forbidden=hidden), LLAMA)
    assert chain.cause is not None
    assert told(chain.cause) == ("group", "unknown", "Forbidden")
    assert chain.state is LinkState.UNKNOWN


def test_a_cache_that_cannot_be_read_or_is_deleted_or_is_kserves() -> None:
    invalid = condition("Ready", "False", "InvalidSpec", "too long")
    assert told(cause(cluster(cache(invalid)))) == ("cache", "broken", "InvalidSpec")
    deleted = cache(condition("Ready", "False", "Deleting", "claims are used"))
    deleted["metadata"]["deletionTimestamp"] = ago(30)
    assert told(cause(cluster(deleted))) == ("cache", "waiting", "Deleting")
    imported = cache(
        condition("Admitted", "False", "ImportedByKServe"), namespace="team", pvcRef="models"
    )
    chain = why(cluster(imported), ("team", "llama"))
    assert chain.cause is not None
    assert told(chain.cause) == ("cache", "broken", "ImportedByKServe")


def _unanswered(seconds: int) -> Snapshot:
    made = cache()
    made["metadata"]["creationTimestamp"] = ago(seconds)
    made["status"] = {"observedGeneration": 0}
    return cluster(made)


def test_a_controller_that_has_not_answered_yet_is_waited_for() -> None:
    assert told(cause(_unanswered(3))) == ("controller", "waiting", "NotAnswered")
    found = cause(_unanswered(240))
    assert told(found) == ("controller", "broken", "ControllerSilent")
    assert "of LocalModelCache llama is not answered for 4 min" in found.words


def test_which_program_is_down() -> None:
    def down(**details: Any) -> Link:
        return cause(_unanswered(240), details=Details(**details))

    hooks = {"metadata": {"name": "localmodel-hooks", "namespace": "lm"}, "status": {}}
    found = down(hooks=(hooks,))
    assert told(found)[2] == "HooksDown"
    assert "lm/localmodel-hooks" in found.words
    controller = {"metadata": {"name": "mc", "namespace": "mc"}, "status": {"readyReplicas": 0}}
    healthy = hooks | {"status": {"availableReplicas": 2}}
    found = down(hooks=(healthy,), metacontrollers=(controller,))
    assert told(found)[2] == "MetacontrollerDown"
    event = {"reason": "SyncError", "message": "Sync error: refused", "lastTimestamp": ago(5)}
    found = down(events=(event,))
    assert told(found)[2] == "HooksDown"
    assert "Sync error: refused" in found.words
    found = down(events=(event | {"lastTimestamp": ago(900)},))
    assert told(found)[2] == "ControllerSilent"


def test_copies_that_the_status_of_the_cache_does_not_count() -> None:
    behind = condition("Ready", "False", "Downloading", "on 0 of 2 nodes")
    assert told(cause(cluster(cache(behind)))) == ("cache ready", "waiting", "NotAnswered")
    old = {"managedFields": managed(status=300)}
    late = [local_model_node(name, metadata=old) for name in ("node-1", "node-2")]
    found = cause(cluster(cache(behind), *late))
    assert told(found) == ("cache ready", "broken", "ControllerSilent")


def test_crds_of_another_program() -> None:
    for kept in ("LocalModelCache", "LocalModelNodeGroup"):
        objects = {"LocalModelCache": cache(), "LocalModelNodeGroup": group()}
        del objects[kept]["status"]["observedGeneration"]
        found = cause(cluster(*objects.values()))
        assert told(found) == ("crds", "broken", "CrdReplaced")
        assert f"the CRD that is served for {kept} is not localmodel's" in found.words
    lost = local_model_node("node-1")
    del lost["spec"]["nodeReady"]
    assert told(cause(cluster(lost))) == ("crds", "broken", "CrdReplaced")
    absent = cluster(without=("LocalModelPlacement",), absent={"LocalModelPlacement"})
    assert told(cause(absent)) == ("crds", "broken", "CrdMissing")


def test_a_node_that_is_not_ready_missing_or_of_no_group() -> None:
    away = cluster(node("node-2", ready="False"))
    assert why(away, LLAMA).state is LinkState.OK
    whole = {"status": {"conditions": [condition("Ready", "Unknown", "NodeStatusUnknown", "gone")]}}
    found = cause(away, "node-2", Details(node=whole))
    assert told(found) == ("node", "broken", "NodeNotReady")
    assert found.words == "Node node-2 is not Ready: NodeStatusUnknown: gone"
    assert found.since == ago(600)

    found = cause(cluster(node("cpu", pool="cpu")), "cpu")
    assert told(found) == ("node", "broken", "NotSelected")
    assert "gpu requires pool=gpu" in found.words
    assert told(cause(cluster(), "node-9")) == ("node", "broken", "NodeNotFound")


def test_a_copy_that_is_being_removed() -> None:
    leaving = local_model_node("cpu", report("Removing", cached=True), entries=[])
    leaving["spec"]["groups"] = [{"name": "other", "storageLimit": "1Gi"}]
    found = cause(cluster(leaving, node("cpu", pool="cpu")), "cpu")
    assert told(found) == ("node", "broken", "NotSelected")
    assert found.words.endswith(
        "gpu requires pool=gpu; the agent removes its copy after the grace period"
    )
    hidden = cluster(leaving, without=("Node",), forbidden={"Node": "nodes is forbidden"})
    assert told(cause(hidden, "cpu")) == ("node", "broken", "NotSelected")
    # Still in the group: the entry is missing.
    unlisted = local_model_node("node-1", report("Removing", cached=True), entries=[])
    assert told(cause(cluster(unlisted), "node-1")) == ("entry", "broken", "ControllerSilent")
    assert why(cluster(unlisted), LLAMA).node == "node-2"


def test_nodes_that_the_user_may_not_read() -> None:
    hidden = {"Node": "nodes is forbidden"}
    snapshot = cluster(without=("Node",), forbidden=hidden)
    assert why(snapshot, LLAMA).state is LinkState.OK
    unseen = why(snapshot, LLAMA, "node-9").cause
    assert unseen is not None
    assert told(unseen) == ("node", "unknown", "Forbidden")
    away = local_model_node("node-2", ready=False)
    assert told(cause(cluster(away, without=("Node",), forbidden=hidden), "node-2"))[2] == (
        "NodeNotReady"
    )


@pytest.mark.parametrize("hidden", [("LocalModelNode",), ("LocalModelNode", "Node")])
@pytest.mark.parametrize("name", ["", "node-1"])
def test_a_cache_of_which_the_user_may_read_no_reports(name: str, hidden: tuple[str, ...]) -> None:
    forbidden = {kind: f"{kind} is forbidden" for kind in hidden}

    def chain(*conditions: Any) -> Chain:
        return why(cluster(cache(*conditions), without=hidden, forbidden=forbidden), LLAMA, name)

    fine = chain()
    assert fine.state is LinkState.UNKNOWN
    assert fine.cause is not None
    assert told(fine.cause) == ("entry", "unknown", "Forbidden")
    failing = chain(condition("Ready", "False", "DownloadFailed", "on 0 of 2 nodes")).cause
    assert failing is not None
    assert told(failing) == ("cache ready", "broken", "DownloadFailed")
    waiting = chain(condition("Ready", "False", "Downloading")).cause
    assert waiting is not None
    assert told(waiting) == ("cache ready", "waiting", "Downloading")


def test_claims_that_are_made_by_hand_are_no_cause() -> None:
    by_hand = cache(condition("ClaimsBound", "Unknown", "VolumesNotManaged"))
    assert why(cluster(by_hand), LLAMA).state is LinkState.OK


def test_an_entry_that_the_node_does_not_get() -> None:
    empty = local_model_node("node-1", report(name="other"), entries=[])
    found = cause(cluster(empty), "node-1")
    assert told(found) == ("entry", "broken", "ControllerSilent")
    fresh = cluster(empty, placement(written=2))
    assert told(cause(fresh, "node-1")) == ("entry", "waiting", "NotAnswered")
    empty["spec"]["leftOut"] = 3
    assert told(cause(cluster(empty), "node-1")) == ("entry", "broken", "GroupTooLarge")


def _behind(changed: int, **status: Any) -> Snapshot:
    metadata = {"generation": 3, "managedFields": managed(spec=changed, status=900)}
    silent = local_model_node("node-1", report("Pending"), metadata=metadata, **status)
    return cluster(cache(NOT_READY), silent)


def test_an_agent_that_does_not_report() -> None:
    assert told(cause(_behind(5))) == ("agent", "waiting", "NotReported")
    found = cause(_behind(240))
    assert told(found) == ("agent", "broken", "AgentSilent")
    assert "has not acted on the last change of LocalModelNode node-1 for 4 min" in found.words
    assert "its last report is 15 min old" in found.words
    never = local_model_node("node-1", metadata={"managedFields": managed(spec=240)[:1]})
    never["status"] = {}
    found = cause(cluster(cache(NOT_READY), never))
    assert "has never reported" in found.words
    assert told(found) == ("agent", "broken", "AgentSilent")


def test_the_pod_of_an_agent_that_does_not_run() -> None:
    found = cause(_behind(240), details=Details(agents=()))
    assert "no pod of the agent is on node-1" in found.words
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}
    pod = {
        "metadata": {"name": "agent-x", "namespace": "lm"},
        "status": {"containerStatuses": [{"ready": False, "state": {"waiting": waiting}}]},
    }
    found = cause(cluster(), "node-1", Details(agents=(pod,)))
    assert told(found) == ("agent", "broken", "AgentSilent")
    assert "its pod lm/agent-x waits: CrashLoopBackOff: back-off 5m0s" in found.words


def test_an_agent_that_stopped_during_a_download_or_before_a_retry() -> None:
    metadata = {"managedFields": managed(status=900)}
    running = report("Downloading", size=GIB, downloadedBytes=1, bytesPerSecond=1)
    stalled = local_model_node("node-1", running, metadata=metadata)
    found = cause(cluster(cache(NOT_READY), stalled))
    assert told(found) == ("agent", "broken", "AgentSilent")
    assert "no progress of the download for 15 min" in found.words
    failed = report("Failed", reason="Unreachable", message="x", nextRetryTime=ago(500))
    overdue = local_model_node("node-1", failed, metadata=metadata)
    assert told(cause(cluster(cache(NOT_READY), overdue)))[2] == "AgentSilent"


def test_a_disk_that_is_read_only() -> None:
    broken = condition("DiskReady", "False", "ReadOnly", "mount it writable")
    found = cause(cluster(local_model_node("node-1", conditions=(broken,))), "node-1")
    assert told(found) == ("disk", "broken", "ReadOnly")


@pytest.mark.parametrize(
    ("status", "reason", "state"),
    [
        ("False", "ClaimRefused", "broken"),
        ("False", "NoNamespaces", "broken"),
        ("False", "ClaimPending", "waiting"),
        ("False", "AwaitingAccess", "waiting"),
    ],
)
def test_a_claim_that_is_not_bound(status: str, reason: str, state: str) -> None:
    found = cause(cluster(cache(condition("ClaimsBound", status, reason))))
    assert told(found) == ("claim", state, reason)


def test_a_claim_names_the_command_that_says_more() -> None:
    pending = cache(condition("ClaimsBound", "False", "ClaimPending"))
    claim = {"metadata": {"name": "llama-gpu", "namespace": "team"}, "status": {"phase": "Pending"}}
    found = cause(cluster(pending), details=Details(claims=(claim,)))
    assert found.next == "kubectl -n team describe pvc llama-gpu"


def test_a_pod_that_waits() -> None:
    volume = {"name": "m", "persistentVolumeClaim": {"claimName": "llama-gpu"}}
    pod = {
        "metadata": {"name": "server", "namespace": "team", "creationTimestamp": ago(70)},
        "spec": {"nodeName": "node-1", "volumes": [volume]},
    }
    other = {"metadata": {"name": "other", "namespace": "team"}, "spec": {"volumes": []}}
    found = cause(cluster(), details=Details(pods=(other, pod)))
    assert told(found) == ("pods", "waiting", "WaitingForModel")
    assert found.words == "team/server wait to start on node-1"
    assert found.since == ago(70)


def test_the_node_that_shows_best_what_is_wrong() -> None:
    failed = local_model_node("node-2", report("Failed", reason="TLS", message="x"))
    assert why(cluster(cache(NOT_READY), failed), LLAMA).node == "node-2"
    assert why(cluster(without=("LocalModelNode",)), LLAMA).node == "node-1"
    assert why(cluster(without=("LocalModelNode", "Node")), LLAMA).node == "node-1"


def test_a_cache_of_a_namespace_has_its_own_copy() -> None:
    tenant = cache(NOT_READY, namespace="team")
    mine = entry(namespace="team", nodeGroup="gpu")
    awaits = report(
        "Pending", namespace="team", reason="AwaitingLocalModelCache", message="it follows"
    )
    both = local_model_node("node-1", report(), awaits, entries=[entry(nodeGroup="gpu"), mine])
    snapshot = cluster(tenant, both, placement(entry(), mine))
    chain = why(snapshot, ("team", "llama"), "node-1")
    assert chain.cause is not None
    assert told(chain.cause) == ("access", "waiting", "AwaitingLocalModelCache")
    assert why(snapshot, LLAMA, "node-1").state is LinkState.OK
    assert URI in chain.links[1].words
