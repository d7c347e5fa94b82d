"""Reads the audit log of a local cluster: what localmodel's users asked for, and what was refused.

    calls = audit.calls(cluster)        # the requests of agents, Metacontroller and hooks
    audit.check(cluster)                # fails if one of them was refused

A test that sends a request in order to see it refused uses `as_user`, whose calls do not count.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from deploy.kube.client import KubeClient
from deploy.local.users import AGENT, HOOKS, METACONTROLLER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from deploy.local.cluster import Cluster

# The user agent of requests that a test wants to be refused.
ON_PURPOSE = "localmodel-test-on-purpose"
RULES = {
    AGENT.name: "deploy/base/rbac.yaml or the rbac.yaml of a component",
    HOOKS.name: "none: the hooks call nobody",
    METACONTROLLER.name: "metacontroller/install/rbac.yaml or deploy/overlays/kserve/rbac.yaml",
}
_REFUSED = ('"authorization.k8s.io/decision":"forbid"', '"code":403', '"code":422')
_ROLE = re.compile(r'of (?:Cluster)?Role "([^"]+)"')
# A server-side apply that creates an object needs the right to create, too.
_CREATING = re.compile(r"cannot create resource")
# So does one that makes an object a child: on some clusters, with the rights on the owner as well.
_OWNING = re.compile(r"cannot set blockOwnerDeletion .* can't set finalizers on")
_DELETING = re.compile(r"cannot set an ownerRef on a resource you can't delete")
_OWNERS = {
    "localmodelplacements": "localmodelnodegroups",
    "localmodelnodes": "nodes",
}
_POLICY = re.compile(r"ValidatingAdmissionPolicy '(localmodel-[^']+)'")


class Refusal(NamedTuple):
    """A right that RBAC does not grant. resource: with its subresource."""

    user: str
    verb: str
    group: str
    resource: str

    def __str__(self) -> str:
        return f"{self.user}: {self.verb} {'.'.join(filter(None, (self.resource, self.group)))}"


@dataclass(frozen=True)
class Call:
    """A request and the answer.

    resource: with its subresource. role: which allowed the request. received: by the API server.
    """

    user: str
    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    code: int
    role: str
    message: str
    allowed: bool
    agent: str
    received: datetime

    @classmethod
    def of(cls, event: dict[str, Any]) -> Self:
        """The call of an event of the log."""
        target = event.get("objectRef") or {"resource": event["requestURI"]}
        notes = event.get("annotations") or {}
        role = _ROLE.search(notes.get("authorization.k8s.io/reason", ""))
        status = event.get("responseStatus") or {}
        parts = (target.get("resource", ""), target.get("subresource", ""))
        return cls(
            user=event["user"]["username"],
            verb=event["verb"],
            group=target.get("apiGroup", ""),
            resource="/".join(filter(None, parts)),
            namespace=target.get("namespace", ""),
            name=target.get("name", ""),
            code=status.get("code", 0),
            role=role[1] if role else "",
            message=status.get("message", ""),
            allowed=notes.get("authorization.k8s.io/decision") == "allow",
            agent=event.get("userAgent", ""),
            received=datetime.fromisoformat(event["requestReceivedTimestamp"]),
        )

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verbs that an allowed request needed."""
        return (self.verb, "create") if self.verb == "patch" and self.code == 201 else (self.verb,)

    @property
    def refusal(self) -> Refusal | None:
        """What RBAC refused."""
        if not self.allowed:
            return Refusal(self.user, self.verb, self.group, self.resource)
        if self.code == 403 and _CREATING.search(self.message):
            return Refusal(self.user, "create", self.group, self.resource)
        if self.code == 403 and _DELETING.search(self.message):
            return Refusal(self.user, "delete", self.group, self.resource)
        if self.code == 403 and _OWNING.search(self.message):
            owner = _owner(self.resource, self.name)
            group = "" if owner == "nodes" else "serving.kserve.io"
            return Refusal(self.user, "update", group, f"{owner}/finalizers")
        return None

    @property
    def policy(self) -> str:
        """The admission policy of localmodel that refused the request, or empty."""
        found = _POLICY.search(self.message) if self.code in {403, 422} else None
        return found[1] if found else ""


def calls(cluster: Cluster, *, refused: bool = False) -> Iterator[Call]:
    """The requests in the log, the oldest first. refused: only those that may be refused."""
    log = cluster.layout.audit_log
    for path in [*sorted(log.parent.glob(f"{log.stem}-*{log.suffix}")), log]:
        yield from _read(path, refused=refused)


def _read(path: Path, *, refused: bool) -> Iterator[Call]:
    if not path.exists():
        return
    with path.open() as lines:
        for line in lines:
            # The last line may be incomplete yet.
            if line.endswith("\n") and (not refused or any(text in line for text in _REFUSED)):
                yield Call.of(json.loads(line))


def as_user(path: Path) -> KubeClient:
    """A client of a kubeconfig whose refused requests are on purpose."""
    return KubeClient.connect(path, headers={"User-Agent": ON_PURPOSE})


def is_granted(cluster: Cluster, right: Refusal, namespace: str = "", name: str = "") -> bool:
    """Whether RBAC grants a right now: the API server's answer to a SubjectAccessReview."""
    plural, _, sub = right.resource.partition("/")
    if right.resource.startswith("/"):
        # A path that is no resource, such as /api of the discovery.
        path, _, _ = right.resource.partition("?")
        asked = {"nonResourceAttributes": {"verb": right.verb, "path": path}}
    else:
        what = {"verb": right.verb, "group": right.group, "resource": plural, "subresource": sub}
        asked = {"resourceAttributes": what | {"namespace": namespace, "name": name}}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": right.user,
            "groups": ["system:authenticated", "system:serviceaccounts"],
            **asked,
        },
    }
    url = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(cluster.api.request("POST", url, body=review)["status"].get("allowed"))


def unexpected(cluster: Cluster) -> list[str]:
    """A sentence for each kind of request of localmodel's users that was refused.

    What RBAC grants now does not count: an API server that has just started refuses every request
    until it has read the roles.
    """
    refused = [
        call
        for call in calls(cluster, refused=True)
        if call.agent != ON_PURPOSE and (call.refusal or call.policy)
    ]
    times = Counter(map(_key, refused))
    return [
        _sentence(call, times[key])
        for key, call in {_key(call): call for call in refused}.items()
        if not (call.refusal and is_granted(cluster, call.refusal, call.namespace, call.name))
    ]


def check(cluster: Cluster) -> None:
    """Fail with the missing rights if a request of localmodel's users was refused."""
    found = unexpected(cluster)
    assert not found, "the API server refused requests of localmodel:\n" + "\n".join(found)


def _owner(resource: str, name: str) -> str:
    """The resource of a child's owner. Names of claims and volumes begin with their cache's."""
    caches = "localmodelnamespacecaches" if name.startswith("own-") else "localmodelcaches"
    return _OWNERS.get(resource, caches)


def _key(call: Call) -> tuple[Refusal | None, str, str]:
    return (call.refusal, call.namespace, call.policy)


def _sentence(call: Call, times: int) -> str:
    where = f" in the namespace {call.namespace}" if call.namespace else ""
    if call.refusal:
        rules = RULES[call.user]
        return f"- {call.refusal}{where} ({times} times): no rule grants it; its rules: {rules}"
    asked = f"{call.user}: {call.verb} {call.resource}{where} ({times} times)"
    return f"- {asked}: refused by the policy {call.policy}: {call.message}"


def used(seen: Iterable[Call]) -> set[tuple[str, str, str, str]]:
    """What RBAC allowed in some calls: the role, the verb, the API group, the resource."""
    return {
        (call.role, verb, call.group, call.resource)
        for call in seen
        if call.allowed and call.role and call.code < 400
        for verb in call.verbs
    }
