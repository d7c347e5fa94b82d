"""The pods that tokens of a local cluster are bound to, and the audit log of their requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from deploy.local import audit, controlplane
from deploy.local.identities import LABEL, pod_object
from deploy.local.layout import CHECKOUT, Layout
from deploy.local.ports import Ports
from deploy.local.users import AGENT, HOOKS, METACONTROLLER
from tests.e2e.audit import Call, Refusal
from tests.e2e.rights import FILES, granted, role_with

LAYOUT = Layout(Path("/l"))
PORTS = Ports(etcd=1, etcd_peer=2, api=3, hooks=4, metacontroller=5)


def test_no_controller_takes_the_pod_of_a_process_and_no_kubelet_starts_it() -> None:
    pod = pod_object(AGENT, "agent-node-1", "node-1")
    assert pod["spec"]["nodeName"] == "node-1"
    assert pod["spec"]["serviceAccountName"] == "localmodel-agent"
    daemon_set = yaml.safe_load((CHECKOUT / "deploy/base/agent.yaml").read_text())
    selected = daemon_set["spec"]["selector"]["matchLabels"]
    assert not selected.items() <= pod["metadata"]["labels"].items()
    # A Node's label would be the name of a process.
    assert pod["spec"]["nodeSelector"] == {LABEL: "none"}
    assert "nodeName" not in pod_object(METACONTROLLER, "metacontroller")["spec"]


def test_the_audit_log_has_the_requests_of_the_products_users_without_bodies() -> None:
    policy = json.loads(audit.policy())
    assert policy["rules"] == [
        {"level": "Metadata", "users": [AGENT.name, HOOKS.name, METACONTROLLER.name]},
        {"level": "None"},
    ]
    argv = controlplane.api_server(LAYOUT, PORTS).argv
    assert "--audit-log-path=/l/logs/audit.log" in argv
    assert {"--audit-log-maxsize=50", "--audit-log-maxbackup=1"} <= set(argv)


def _call(code: int, message: str = "", *, decision: str = "allow", **target: str) -> Call:
    event: dict[str, Any] = {
        "user": {"username": METACONTROLLER.name},
        "verb": "patch",
        "requestReceivedTimestamp": "2026-11-28T12:00:00.000000Z",
        "objectRef": {"resource": "persistentvolumes", "name": "own-x"} | target,
        "responseStatus": {"code": code, "message": message},
        "annotations": {
            "authorization.k8s.io/decision": decision,
            "authorization.k8s.io/reason": 'RBAC: … of ClusterRole "metacontroller" to …',
        },
    }
    return Call.of(event)


def test_the_right_that_a_refused_request_lacks() -> None:
    def lacks(verb: str, resource: str, group: str = "") -> Refusal:
        return Refusal(METACONTROLLER.name, verb, group, resource)

    assert _call(200).refusal is None
    assert _call(409, "the object has been modified").refusal is None
    assert _call(403, decision="forbid", subresource="status").refusal == lacks(
        "patch", "persistentvolumes/status"
    )
    message = 'User "x" cannot create resource "persistentvolumes" in API group ""'
    assert _call(403, message).refusal == lacks("create", "persistentvolumes")
    message = "cannot set an ownerRef on a resource you can't delete: , <nil>"
    assert _call(403, message).refusal == lacks("delete", "persistentvolumes")
    message = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you "
    message += "can't set finalizers on: , <nil>"
    ours = "serving.kserve.io"
    finalizers = "localmodelnamespacecaches/finalizers"
    assert _call(403, message).refusal == lacks("update", finalizers, ours)
    plan = _call(403, message, resource="localmodelnodes", apiGroup=ours)
    assert plan.refusal == lacks("update", "nodes/finalizers")
    message = "ValidatingAdmissionPolicy 'localmodel-node-status' with binding 'x' denied request"
    assert _call(422, message).policy == "localmodel-node-status"
    # A policy of somebody else, and a quota.
    assert _call(403, "ValidatingAdmissionPolicy 'other' denied request").policy == ""
    assert _call(403, "exceeded quota").refusal is None


def test_an_apply_that_creates_uses_two_rights() -> None:
    assert _call(200).verbs == ("patch",)
    assert _call(201).verbs == ("patch", "create")


def test_roles_are_made_of_single_rights() -> None:
    every = granted(*FILES)
    assert len(every) == len(set(every)) > 80
    role = role_with("localmodel-agent", "kserve-localmodel-jobs", every)
    assert role["kind"] == "Role"
    assert [rule["resources"] for rule in role["rules"]] == [
        ["secrets"],
        ["serviceaccounts"],
        ["configmaps"],
    ]
    assert {right.user for right in every} == {AGENT.name, METACONTROLLER.name}
