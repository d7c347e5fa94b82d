"""Reads what a plan needs: the documents of a file, and the objects that the hooks ask for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from crds.cache import LocalModelCache, LocalModelNamespaceCache
from crds.nodegroup import LocalModelNodeGroup
from deploy.kube import meta
from deploy.kube.errors import ApiError, ForbiddenError, NotFoundError, UnreachableError
from deploy.kube.kinds import CLAIMS, DEPLOYMENTS, GROUPS, VOLUMES, Kind, KubeObject, Ref
from deploy.kubectl.applying import applied
from deploy.kubectl.plan import KINDS, Action, Change
from deploy.kubectl.simulation import Foreign, kind_name, rule_key, rules_of
from hooks.settings import WORKLOAD_KINDS, Settings, VolumeScope, WatchedKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from deploy.kube.client import KubeClient
    from hooks.envelope import RelatedRule

_HOOKS_LABEL = "app.kubernetes.io/name=localmodel-hooks"
# What deploy/base sets.
DEFAULT_SETTINGS = Settings(
    volumes=VolumeScope.MODEL,
    workload_kinds=tuple(
        WatchedKind(kind, f"{WORKLOAD_KINDS[kind]}/v1")
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
    ),
)
_TYPES = {
    "LocalModelCache": LocalModelCache,
    "LocalModelNamespaceCache": LocalModelNamespaceCache,
    "LocalModelNodeGroup": LocalModelNodeGroup,
}
_BY_NAME = {kind.name: kind for kind in KINDS}
# The API server's words where a right is missing; a policy's refusal has other ones.
_LACKS_RIGHT = re.compile(r'User "[^"]*" cannot \w+ resource')


class DocumentError(ValueError):
    """A document that no plan can be made of. The message says which and why."""


def read_documents(text: str, source: str) -> list[KubeObject]:
    """The documents of a YAML or JSON text, those of Lists too. Raises DocumentError."""
    try:
        found = [one for one in yaml.load_all(text, yaml.CSafeLoader) if one is not None]
    except (ValueError, yaml.YAMLError) as error:
        # ValueError: what looks like a date, such as 2026-02-30, and is none.
        raise DocumentError(f"{source} is not YAML: {error}") from None
    documents: list[KubeObject] = []
    for number, one in enumerate(found, 1):
        items = one.get("items") if isinstance(one, dict) and one.get("kind") == "List" else None
        documents += [_checked(item, f"document {number} of {source}") for item in items or [one]]
    if not documents:
        raise DocumentError(f"{source} has no document: write a cache or a group into it")
    seen: set[tuple[str, str, str]] = set()
    for document in documents:
        identity = (document["kind"], meta.namespace(document), meta.name(document))
        if identity in seen:
            raise DocumentError(f"{source} has {identity[0]} {identity[2]} twice")
        seen.add(identity)
    return documents


def _checked(document: Any, where: str) -> KubeObject:
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        raise DocumentError(f"{where} is not an object of Kubernetes: it has no metadata")
    kind = _BY_NAME.get(str(document.get("kind")))
    if kind is None or document.get("apiVersion") != kind.api_version:
        raise DocumentError(
            f"{where} is a {document.get('kind')} of {document.get('apiVersion')}: a plan is made "
            f"of {', '.join(_BY_NAME)} of {KINDS[0].api_version}"
        )
    if not meta.name(document):
        raise DocumentError(f"{where} has no metadata.name")
    return dict(document)


def changes_of(
    client: KubeClient,
    documents: Iterable[KubeObject],
    *,
    namespace: str,
    delete: bool,
    now: datetime,
) -> tuple[list[Change], list[str]]:
    """What each document does to its object, and notes on what could not be checked.

    namespace: of documents that name none. The API server checks each document and stores nothing.
    """
    notes: list[str] = []
    changes = []
    for document in documents:
        kind = _BY_NAME[document["kind"]]
        metadata = {**document["metadata"]}
        if kind.namespaced:
            metadata.setdefault("namespace", namespace)
        else:
            metadata.pop("namespace", None)
        wanted = {**document, "metadata": metadata}
        stored = client.find(kind, metadata["name"], metadata.get("namespace", ""))
        if delete:
            if stored is None:
                refusal = "it does not exist"
                changes.append(Change(kind, wanted, Action.DELETE, refusal))
            else:
                changes.append(Change(kind, stored, Action.DELETE))
        else:
            change, note = _change(client, kind, wanted, stored, now)
            changes.append(change)
            notes += [note] if note else []
    return changes, notes


def _change(
    client: KubeClient,
    kind: Kind,
    wanted: KubeObject,
    stored: KubeObject | None,
    now: datetime,
) -> tuple[Change, str]:
    """What a document does, and a note where the API server could not check it."""
    note = ""
    action = Action.CREATE if stored is None else Action.CHANGE
    merged = wanted if stored is None else applied(stored, wanted)
    try:
        checked = _dry_run(client, kind, merged, is_new=stored is None)
    except ForbiddenError as error:
        if not _LACKS_RIGHT.search(error.message):
            return Change(kind, merged, action, error.message), ""
        what = f"{kind.name} {meta.name(wanted)}"
        note = f"the API server did not check {what}: {error.message}"
        refusal = _refusal_of_types(merged)
        checked = merged if stored else _as_new(merged, now)
        if refusal:
            return Change(kind, merged, action, refusal), note
    except UnreachableError:
        raise
    except ApiError as error:
        # Such as an unknown field, a broken rule of the CRD, or a missing namespace.
        return Change(kind, merged, action, error.message), ""
    if stored is not None and checked.get("spec") == stored.get("spec"):
        action = Action.NOTHING
    return Change(kind, checked, action), note


def _dry_run(client: KubeClient, kind: Kind, obj: KubeObject, *, is_new: bool) -> KubeObject:
    """The object as the API server would store it. Raises ApiError."""
    if is_new:
        return client.create(obj, dry_run=True, strict=True)
    ref = Ref(kind, meta.name(obj), meta.namespace(obj))
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    path = kind.path(ref.name, ref.namespace)
    return client.request("PUT", path, doing=f"checking {ref}", body=obj, query=query)


def _refusal_of_types(obj: KubeObject) -> str:
    """What the types say against an object; empty if it fits."""
    try:
        _TYPES[obj["kind"]].model_validate(_as_new(obj, None))
    except ValidationError as error:
        return "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
    return ""


def _as_new(obj: KubeObject, now: datetime | None) -> KubeObject:
    metadata = {"uid": f"planned-{meta.name(obj)}", "generation": 1, **obj["metadata"]}
    if now is not None:
        metadata.setdefault("creationTimestamp", f"{now:%Y-%m-%dT%H:%M:%SZ}")
    # The default of the CRDs, by which the hooks know that their CRD is served.
    return {"status": {"observedGeneration": -1}, **obj, "metadata": metadata}


def read_settings(client: KubeClient) -> tuple[Settings, list[str]]:
    """The settings of the hooks that run in the cluster, or else the defaults, with a note."""
    why = "there is no such Deployment"
    deployments: tuple[KubeObject, ...] = ()
    try:
        # The namespace is that of the installation.
        deployments = client.find_all(DEPLOYMENTS, labels=_HOOKS_LABEL)
    except ForbiddenError as error:
        why = error.message
    for found in deployments:
        containers = found["spec"]["template"]["spec"]["containers"]
        environment = {
            one["name"]: one.get("value") or ""
            for container in containers
            for one in container.get("env") or ()
        }
        try:
            return Settings.from_environment(environment), []
        except ValueError as error:
            why = str(error)
    note = (
        "the hooks are taken to have their default settings: the Deployment localmodel-hooks could "
        f"not be read ({why})"
    )
    return DEFAULT_SETTINGS, [note]


def read_foreign(
    client: KubeClient, changes: Sequence[Change], settings: Settings
) -> tuple[Foreign, list[str]]:
    """What the hooks of these caches ask for, and their volumes and claims, with notes."""
    related: dict[str, tuple[KubeObject, ...]] = {}
    children: dict[str, tuple[KubeObject, ...]] = {}
    unread: dict[str, str] = {}
    for change in changes:
        if change.kind == GROUPS or change.refusal or change.action is Action.DELETE:
            continue
        for rule in rules_of(change.obj, settings):
            key = rule_key(rule)
            if key not in related:
                related[key] = _of_rule(client, rule, settings, unread)
        uid = meta.uid(change.obj)
        if change.action is not Action.CREATE:
            children[uid] = tuple(
                child
                for kind in (VOLUMES, CLAIMS)
                for child in _listed(
                    client, kind, change.namespace, f"controller-uid={uid}", unread
                )
            )
    notes = [
        f"{resource} could not be read, and count as none: {why}"
        for resource, why in unread.items()
    ]
    return Foreign(related, children), notes


def _of_rule(
    client: KubeClient, rule: RelatedRule, settings: Settings, unread: dict[str, str]
) -> tuple[KubeObject, ...]:
    kind = Kind(rule.api_version, rule.resource, kind_name(rule, settings), namespaced=True)
    namespace = rule.namespace or ""
    if rule.names is None:
        return _listed(client, kind, namespace, _selector(rule.label_selector or {}), unread)
    found: list[KubeObject] = []
    for name in rule.names:
        # Objects of one name in all namespaces.
        query = {"fieldSelector": f"metadata.name={name}"}
        try:
            page = client.request(
                "GET", kind.path(namespace=namespace), doing=f"listing {kind.plural}", query=query
            )
        except (ForbiddenError, NotFoundError) as error:
            unread[kind.plural] = error.message
            return ()
        found += [_with_kind(item, kind) for item in page.get("items") or ()]
    return tuple(found)


def _listed(
    client: KubeClient, kind: Kind, namespace: str, labels: str, unread: dict[str, str]
) -> tuple[KubeObject, ...]:
    try:
        where = namespace if kind.namespaced else ""
        return tuple(_with_kind(item, kind) for item in client.list(kind, where, labels=labels))
    except (ForbiddenError, NotFoundError) as error:
        unread[kind.plural] = error.message
        return ()


def _with_kind(item: KubeObject, kind: Kind) -> KubeObject:
    """An item of a list as Metacontroller sends it."""
    return {"apiVersion": kind.api_version, "kind": kind.name, **item}


def _selector(selector: KubeObject) -> str:
    """A label selector as text."""
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or ():
        key, values = term["key"], ",".join(term.get("values") or ())
        forms = {
            "Exists": key,
            "DoesNotExist": f"!{key}",
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
        }
        terms.append(forms[term["operator"]])
    return ",".join(terms)
