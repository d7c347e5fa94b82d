"""What the hooks would write if some objects were other ones: Metacontroller's part, in memory.

The hooks are the product's own functions. They are called with the requests that Metacontroller
would send, until plans and lists of nodes change no more. Agents report nothing meanwhile. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from crds.base import API_VERSION
from deploy.kube import meta
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    GROUPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    PLACEMENTS,
    VOLUMES,
)
from hooks import caches, nodegroups, nodes
from hooks.answer_delay import DelayedAnswer
from hooks.envelope import (
    CompositeRequest,
    CompositeResponse,
    CustomizeRequest,
    DecoratorRequest,
    RelatedRule,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from deploy.kube.kinds import Kind, KubeObject
    from hooks.settings import Settings

# Plans, nodes, and once more for the turns and the status that follow from the nodes.
_ROUNDS = 6
# More than a group waits for its nodes, and for the next turn; all rounds are less than the time
# after which a silent node loses its turn.
_ROUND = timedelta(seconds=8)
_OWN = {kind.plural: kind for kind in (CACHES, NAMESPACE_CACHES, GROUPS, LOCAL_MODEL_NODES)}

Objects = dict[str, "Stored"]


class Stored:
    """An object, and its JSON for the hooks, which is made once."""

    def __init__(self, obj: KubeObject) -> None:
        self.obj = obj
        self._raw: Raw | None = None

    @property
    def raw(self) -> Raw:
        """The object as JSON."""
        if self._raw is None:
            self._raw = Raw(msgspec.json.encode(self.obj))
        return self._raw

    def with_parts(self, **parts: Any) -> Stored:
        """The object with other parts, such as its spec or status."""
        return Stored({**self.obj, **parts})


@dataclass
class Foreign:
    """What was read for the hooks beside localmodel's kinds and Nodes.

    related: objects by the rule that selects them: see rule_key. children: volumes and claims that
    belong to a cache, by the cache's uid.
    """

    related: Mapping[str, tuple[KubeObject, ...]] = field(default_factory=dict)
    children: Mapping[str, tuple[KubeObject, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Claims:
    """The claims that a cache's hook wants, and those that the cache has now, by namespace/name."""

    wanted: frozenset[str] = frozenset()
    present: frozenset[str] = frozenset()


@dataclass
class Simulation:
    """The objects of a cluster, which `apply` and `delete` change, and whose hooks `run` calls."""

    settings: Settings
    now: datetime
    objects: dict[Kind, Objects]
    nodes: Objects
    foreign: Foreign = field(default_factory=Foreign)
    claims: dict[tuple[str, str], Claims] = field(default_factory=dict)

    def apply(self, kind: Kind, obj: KubeObject) -> None:
        """Store an object in the place of the former one."""
        self.objects[kind][_key(obj)] = Stored(obj)

    def delete(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Delete a cache as if nothing used it, or begin to delete a group."""
        key = f"{namespace}/{name}" if namespace else name
        if kind != GROUPS:
            self.objects[kind].pop(key, None)
            return
        group = self.objects[kind][key]
        metadata = {**group.obj["metadata"], "deletionTimestamp": _stamp(self.now)}
        self.objects[kind][key] = group.with_parts(metadata=metadata)

    def run(self, groups: Iterable[str]) -> None:
        """Call the hooks of these groups, and those of all nodes, until nothing changes."""
        names = sorted(name for name in groups if name in self.objects[GROUPS])
        for _ in range(_ROUNDS):
            self.now += _ROUND
            before = {name: self._status(name) for name in names}
            changed = [self._sync_group(name) for name in names]
            moved = self._sync_nodes() if any(changed) else False
            settled = all(self._status(name) == before[name] for name in names)
            if settled and not moved and not any(changed):
                return

    def _status(self, group: str) -> object:
        """The status of a group without its time, and with conditions by reason alone."""
        status = dict(self.objects[GROUPS][group].obj.get("status") or {})
        status.pop("lastUpdateTime", None)
        status["conditions"] = [
            (one["type"], one["status"], one["reason"]) for one in status.get("conditions") or ()
        ]
        return status

    def _sync_group(self, name: str) -> bool:
        """Call a group's hook. Returns whether the plan has changed."""
        group = self.objects[GROUPS][name]
        deleting = meta.is_deleting(group.obj)
        placement = self.objects[PLACEMENTS].get(name)
        request = CompositeRequest(
            parent=group.raw,
            children={
                _kind_key(PLACEMENTS): {name: placement.raw} if placement else {},
                _kind_key(VOLUMES): {},
            },
            related=self._related(
                nodegroups.customize(CustomizeRequest(group.raw), self.settings).related_resources
            ),
            finalizing=deleting,
        )
        hook = nodegroups.finalize if deleting else nodegroups.sync
        answer = hook(request, self.settings, self.now)
        response = answer.response if isinstance(answer, DelayedAnswer) else answer
        self.objects[GROUPS][name] = group.with_parts(
            status=_with_generation(response.status, group.obj)
        )
        (plan,) = (child for child in response.children if child["kind"] == PLACEMENTS.name)
        changed = placement is None or placement.obj.get("spec") != plan["spec"]
        if changed:
            self.objects[PLACEMENTS][name] = Stored(_stored_as(plan, placement))
        return changed

    def _sync_nodes(self) -> bool:
        """Call the hook of each Node. Returns whether the list of any has changed."""
        related = {
            _kind_key(PLACEMENTS): {
                name: placement.raw for name, placement in self.objects[PLACEMENTS].items()
            }
        }
        lists, moved = self.objects[LOCAL_MODEL_NODES], False
        for name, node in self.nodes.items():
            former = lists.get(name)
            attachments = {_kind_key(LOCAL_MODEL_NODES): {name: former.raw} if former else {}}
            request = DecoratorRequest(node.raw, attachments, related, finalizing=False)
            found = nodes.sync(request).attachments
            if not isinstance(found, tuple):
                continue
            (wanted,) = found
            spec = msgspec.json.decode(msgspec.json.encode(wanted["spec"]))
            if former is None or former.obj.get("spec") != spec:
                moved = True
                made = _stored_as({**wanted, "spec": spec}, former)
                lists[name] = Stored(made)
        return moved

    def run_cache(self, kind: Kind, key: str) -> None:
        """Call a cache's hook, by its status and claims: see `claims`."""
        cache = self.objects[kind][key]
        owned = self.foreign.children.get(meta.uid(cache.obj), ())
        children = {_kind_key(one): _raws(owned, one) for one in (VOLUMES, CLAIMS)}
        rules = caches.customize(CustomizeRequest(cache.raw), self.settings).related_resources
        request = CompositeRequest(
            parent=cache.raw, children=children, related=self._related(rules), finalizing=False
        )
        response: CompositeResponse = caches.sync(request, self.settings, self.now)
        self.objects[kind][key] = cache.with_parts(
            status=_with_generation(response.status, cache.obj)
        )
        self.claims[meta.namespace(cache.obj), meta.name(cache.obj)] = Claims(
            wanted=frozenset(
                _key(child) for child in response.children if child["kind"] == CLAIMS.name
            ),
            present=frozenset(_key(one) for one in owned if one["kind"] == CLAIMS.name),
        )

    def _related(self, rules: Iterable[RelatedRule]) -> dict[str, dict[str, Raw]]:
        found: dict[str, dict[str, Raw]] = {}
        for rule in rules:
            own = _OWN.get(rule.resource) if rule.api_version == API_VERSION else None
            if own is not None:
                some = found.setdefault(_kind_key(own), {})
                some |= {
                    key: one.raw for key, one in self.objects[own].items() if _selects(rule, one)
                }
                continue
            objects = self.foreign.related.get(rule_key(rule), ())
            kind = f"{kind_name(rule, self.settings)}.{rule.api_version}"
            found.setdefault(kind, {}).update({_key(one): _raw(one) for one in objects})
        return found


# The kinds of hooks' rules whose name is not the resource in capital letters.
_NAMES = {
    "limitranges": "LimitRange",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "persistentvolumes": "PersistentVolume",
    "resourcequotas": "ResourceQuota",
    "configmaps": "ConfigMap",
    "namespaces": "Namespace",
    "validatingadmissionpolicies": "ValidatingAdmissionPolicy",
    "validatingadmissionpolicybindings": "ValidatingAdmissionPolicyBinding",
}


def rules_of(cache: KubeObject, settings: Settings) -> tuple[RelatedRule, ...]:
    """The rules of a cache's hook for objects that are neither localmodel's nor Nodes."""
    request = CustomizeRequest(Raw(msgspec.json.encode(cache)))
    rules = caches.customize(request, settings).related_resources
    return tuple(rule for rule in rules if rule.api_version != API_VERSION)


def rule_key(rule: RelatedRule) -> str:
    """What identifies a rule."""
    return msgspec.json.encode(rule).decode()


def kind_name(rule: RelatedRule, settings: Settings) -> str:
    """The kind of a rule's objects."""
    for kind in (*settings.workload_kinds, *settings.service_kinds):
        if (kind.resource, kind.api_version) == (rule.resource, rule.api_version):
            return kind.kind
    return _NAMES[rule.resource]


def _selects(rule: RelatedRule, one: Stored) -> bool:
    """Whether a rule of the hooks for localmodel's kinds selects an object."""
    if rule.names is not None and meta.name(one.obj) not in rule.names:
        return False
    selector = rule.label_selector or {}
    labels = meta.labels(one.obj)
    return all(term["key"] in labels for term in selector.get("matchExpressions", ()))


def _stored_as(child: KubeObject, former: Stored | None) -> KubeObject:
    """A child as the API server stores it."""
    metadata = {**meta.metadata(former.obj if former else {}), **child["metadata"]}
    metadata["generation"] = int(metadata.get("generation") or 0) + 1
    metadata.setdefault("resourceVersion", "1")
    status = (former.obj.get("status") if former else None) or {}
    return {**child, "metadata": metadata, "status": status}


def _with_generation(status: KubeObject, parent: KubeObject) -> KubeObject:
    """A status as Metacontroller writes it."""
    found = msgspec.json.decode(msgspec.json.encode(status))
    return {**found, "observedGeneration": meta.generation(parent)}


def _kind_key(kind: Kind) -> str:
    return f"{kind.name}.{kind.api_version}"


def _key(obj: KubeObject) -> str:
    namespace = meta.namespace(obj)
    return f"{namespace}/{meta.name(obj)}" if namespace else meta.name(obj)


def _raw(obj: KubeObject) -> Raw:
    return Raw(msgspec.json.encode(obj))


def _raws(objects: Iterable[KubeObject], kind: Kind) -> dict[str, Raw]:
    return {_key(one): _raw(one) for one in objects if one["kind"] == kind.name}


def _stamp(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
