"""The attacks that a tenant can make with its own rights: caches, claims and pods."""

from __future__ import annotations

import base64
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crds.base import API_VERSION
from crds.naming import claim_name
from deploy.kube.errors import ApiError, NotFoundError
from deploy.kube.kinds import CLAIMS, NAMESPACE_CACHES, PODS, Kind
from hooks.naming import kserve_volume_name, volume_name
from tests.faults import hostile

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import KubeObject
    from tests.faults.disk import Model

# The most objects at a time: with more, the machine would be the limit.
MOST_OBJECTS = 60
LIFE_SECONDS = (4.0, 30.0)
HIGHEST_PRIORITY = 1_000_000
LONGEST_URI = 2048
PARAMETERS = 32
PARAMETERS_BYTES = 16_384
CROWD = 6
_SERVER_ERROR = 500


@dataclass
class Tenant:
    """A namespace with its identity, its models, and its objects for the attacks.

    `served` are models of its store that it requests to fill disks. `new` are models that no tenant
    has requested yet, and `taken` those of them that another tenant requested first.
    """

    name: str
    api: KubeClient
    group: str
    key: str
    harmful: Sequence[str]
    good: Model
    scratched: Model
    served: list[Model]
    new: list[Model]
    taken: list[Model] = field(default_factory=list)
    made: dict[tuple[str, str], float] = field(default_factory=dict)
    refused: int = 0
    number: int = 0

    def make(self, resource: Kind, obj: KubeObject, seconds: float) -> bool:
        """Make an object for a while. Returns whether it was accepted. Raises ApiError (5xx)."""
        if len(self.made) >= MOST_OBJECTS:
            return False
        obj["metadata"]["namespace"] = self.name
        name = obj["metadata"]["name"]
        try:
            self.api.create(obj)
        except ApiError as error:
            if not error.status or error.status >= _SERVER_ERROR:
                raise
            self.refused += 1
            return False
        self.made[resource.plural, name] = time.monotonic() + seconds
        return True

    def cache(self, name: str, uri: str, group: str, seconds: float, **spec: Any) -> bool:
        """Make a cache for a while, unless the API server refuses it."""
        return self.make(NAMESPACE_CACHES, cache_object(name, uri, group, **spec), seconds)

    def unmake(self, now: float) -> None:
        """Delete the objects whose time is over."""
        for (plural, name), until in list(self.made.items()):
            if until <= now:
                del self.made[plural, name]
                delete(self.api, _RESOURCES[plural], name, self.name)

    def next(self, what: str) -> str:
        """A name that no object had before."""
        self.number += 1
        return f"{what}-{self.number}"


_RESOURCES = {resource.plural: resource for resource in (NAMESPACE_CACHES, CLAIMS, PODS)}


def delete(api: KubeClient, resource: Kind, name: str, namespace: str) -> None:
    """Delete an object, which may be gone already."""
    with suppress(NotFoundError):
        api.delete(resource, name, namespace, grace_seconds=0 if resource is PODS else None)


def cache_object(name: str, uri: str, group: str, **spec: Any) -> KubeObject:
    """A namespace cache. Fields that are None are left out."""
    whole = {"sourceModelUri": uri, "modelSize": "1Mi", "nodeGroup": group} | spec
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelNamespaceCache",
        "metadata": {"name": name},
        "spec": {field: value for field, value in whole.items() if value is not None},
    }


def claim_object(name: str, volume: str) -> KubeObject:
    """A claim that names its volume."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": volume,
            "resources": {"requests": {"storage": "1"}},
        },
    }


def pod_object(name: str, node: str, claim: str, key: str) -> KubeObject:
    """A pod on a node that reads one model of a claim."""
    mount = {"name": "model", "mountPath": "/mnt/models", "subPath": f"models/{key}"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "server", "image": "server", "volumeMounts": [mount]}],
            "volumes": [{"name": "model", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }


@dataclass
class Attack:
    """One attack: the attacker, the victim, and the rest of the cluster."""

    by: Tenant
    on: Tenant
    administrators: Sequence[Model]
    groups: Sequence[str]
    nodes: Sequence[str]
    limit: int
    stores: Mapping[str, str]
    chance: random.Random

    @property
    def seconds(self) -> float:
        """The seconds that the attack's objects stay."""
        return self.chance.uniform(*LIFE_SECONDS)

    @property
    def group(self) -> str:
        """A random group."""
        return self.chance.choice(self.groups)

    @property
    def server(self) -> str:
        """A random server of the attacker."""
        return self.chance.choice(self.by.harmful)

    @property
    def goal(self) -> Model:
        """A random model of the victim or of the administrator."""
        return self.chance.choice([self.on.good, self.on.scratched, *self.administrators])

    def lead(self, server: str, who: str, **parameters: str) -> KubeObject:
        """Storage with the tenant's key for an S3 store, whose endpoint is a server of its own."""
        given = {"endpoint_url": server, "access_key_id": who} | parameters
        return {"key": self.by.key, "parameters": given}

    def words(self, size: int) -> str:
        """Random text."""
        return base64.b64encode(self.chance.randbytes(size)).decode()[:size]


def unreadable(attack: Attack) -> None:
    """Store caches that no hook could parse, and change caches that were stored before limits."""
    by = attack.by
    kinds: tuple[dict[str, Any], ...] = UNREADABLE
    for spec in kinds:
        by.cache(by.next("unreadable"), "s3://bucket/m", attack.group, attack.seconds, **spec)
    by.cache("n" * 100, "s3://bucket/m", attack.group, attack.seconds)
    change = {"metadata": {"annotations": {"touched": by.next("touch")}}}
    name = stored_name(attack.chance.randrange(len(kinds)))
    by.api.patch(NAMESPACE_CACHES, name, change, by.name)


UNREADABLE: tuple[dict[str, Any], ...] = (
    {"nodeGroup": "g" * 69},
    {"modelSize": "1e100"},
    {"sourceModelUri": f"s3://bucket/{'u' * 3000}"},
    {"pvcRef": "shared-models"},
    {"priority": 10**12},
    {"storage": {"key": "k", "parameters": {"p": "x" * 400_000}}},
    {"nodeGroup": None, "nodeGroups": ["gpu"] * 100},
    {"nodeGroups": ["gpu"]},
    {"nodeGroup": None},
)


def stored_name(number: int) -> str:
    """The name of an unreadable cache that was stored before the CRD had limits."""
    return f"stored-{number}"


def large(attack: Attack) -> None:
    """Make as many caches, as large as allowed."""
    by = attack.by
    for _ in range(CROWD):
        each = PARAMETERS_BYTES // PARAMETERS - 8
        parameters = {f"p{n:06}": attack.words(each) for n in range(PARAMETERS)}
        uri = f"s3://bucket/{attack.words(16).replace('+', 'p').replace('/', 's')}/"
        groups = [*attack.groups, *(f"{n:02}{'g' * 61}" for n in range(64 - len(attack.groups)))]
        by.cache(
            by.next("large"),
            uri + "u" * (LONGEST_URI - len(uri)),
            "",
            attack.seconds,
            nodeGroup=None,
            nodeGroups=groups,
            storage={"key": by.key, "parameters": parameters},
        )


def collide(attack: Attack) -> None:
    """Make caches whose names lead to the victim's volume and claim, and claims that name it."""
    by, on = attack.by, attack.on
    volumes = {
        kserve_volume_name(on.good.name, on.group, on.name),
        volume_name(on.good.name, on.group, on.name),
    }
    seconds = attack.seconds
    for volume in volumes:
        for group in attack.groups:
            end = f"-{group}-{by.name}"
            if volume.endswith(end) and volume != end:
                by.cache(volume.removesuffix(end), by.served[0].uri, group, seconds)
        name = by.next("claimed")
        group = attack.group
        by.make(CLAIMS, claim_object(claim_name(name, group), volume), seconds)
        by.cache(name, by.served[0].uri, group, seconds, storage={"key": by.key})
    for model in attack.administrators:
        by.cache(model.name, by.served[0].uri, by.group, seconds, storage={"key": by.key})


def false_store(attack: Attack) -> None:
    """Request another's URI from a store that lists other files."""
    by = attack.by
    storage = attack.lead(attack.server, attack.chance.choice(hostile.FALSE))
    by.cache(by.next("false"), attack.goal.uri, attack.group, attack.seconds, storage=storage)


def list_alone(attack: Attack) -> None:
    """Request another's URI from the other's own store, which lists it for everybody."""
    by, owner = attack.by, attack.chance.choice([attack.on.name, "admin"])
    goals = [attack.on.good, attack.on.scratched] if owner != "admin" else attack.administrators
    goal = attack.chance.choice(list(goals))
    storage = attack.lead(attack.stores[owner], by.name)
    by.cache(by.next("lists"), goal.uri, attack.group, attack.seconds, storage=storage)


def origin(attack: Attack) -> None:
    """Request models of a source that never ends, or sends more than an agent can hold."""
    by, scheme = attack.by, attack.chance.choice(("http", "s3", "webhdfs", "archive"))
    name, seconds = by.next("origin"), attack.seconds
    host = attack.server
    if scheme == "s3":
        storage = attack.lead(host, attack.chance.choice(hostile.OVER_S3))
        by.cache(name, f"s3://{name}/m", attack.group, seconds, storage=storage)
    elif scheme == "archive":
        by.cache(name, f"{host}/archive/{name}/m.tar.gz", attack.group, seconds)
    elif scheme == "webhdfs":
        what = attack.chance.choice(hostile.OVER_WEBHDFS)
        uri = f"webhdfs://{host.removeprefix('http://')}/{what}/{name}"
        by.cache(name, uri, attack.group, seconds)
    else:
        what = attack.chance.choice(hostile.OVER_HTTP)
        by.cache(name, f"{host}/{what}/{name}/m.bin", attack.group, seconds)


def never(attack: Attack) -> None:
    """Request models of the limit's size with the highest priority, which no source has."""
    by, limit = attack.by, str(attack.limit)
    uris = (
        "http://127.0.0.1:1/never.bin",
        f"{attack.server}/silence/never.bin",
        f"{attack.server}/missing/never.bin",
    )
    uri, seconds = attack.chance.choice(uris), attack.seconds
    importance: tuple[dict[str, Any], ...] = (
        {},
        {"priority": -5},
        {"priority": HIGHEST_PRIORITY},
        {"retention": "Pinned"},
    )
    for spec in importance:
        name = by.next("never")
        by.cache(name, f"{uri}?{name}", attack.group, seconds, modelSize=limit, **spec)


def fill(attack: Attack) -> None:
    """Request real models until no more fits, with pods that use them."""
    by = attack.by
    model = attack.chance.choice(by.served)
    name, group, seconds = by.next("fill"), attack.group, attack.seconds
    by.cache(name, model.uri, group, seconds, storage={"key": by.key}, modelSize=str(model.size))
    pod = pod_object(by.next("pod"), attack.chance.choice(attack.nodes), "", model.key)
    pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = claim_name(name, group)
    by.make(PODS, pod, seconds)
    # A pod that names another's model in its mount.
    spied = pod_object(by.next("pod"), attack.chance.choice(attack.nodes), "", attack.goal.key)
    spied["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = claim_name(name, group)
    by.make(PODS, spied, seconds)


def certificates(attack: Attack) -> None:
    """Make caches with certificates, all different."""
    by = attack.by
    for _ in range(CROWD):
        body = attack.words(12_000)
        pem = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
        storage = attack.lead(attack.server.replace("http:", "https:"), "x", certificate=pem)
        name = by.next("certificate")
        by.cache(name, f"s3://{name}/m", attack.group, attack.seconds, storage=storage)


def addresses(attack: Attack) -> None:
    """Request URIs of servers that a tenant must not reach through an agent."""
    by = attack.by
    uris = (
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/latest",
        "http://[fd00:ec2::254]/latest",
        "http://100.100.100.200/latest",
        "http://0.0.0.0/",
        "file:///etc/passwd",
        "file:///proc/self/environ",
        "pvc://claim/model",
        "hdfs://node/model",
    )
    by.cache(by.next("address"), attack.chance.choice(uris), attack.group, attack.seconds)


def churn(attack: Attack) -> None:
    """Make caches with the same name again and again, each with another model."""
    by = attack.by
    name = f"churn-{attack.chance.randrange(3)}"
    delete(by.api, NAMESPACE_CACHES, name, by.name)
    model = attack.chance.choice([*by.served, attack.on.good])
    by.cache(name, model.uri, attack.group, attack.seconds, storage={"key": by.key})


def first(attack: Attack) -> None:
    """Request a new model of the victim from an own store, before the victim requests it."""
    if not attack.on.new:
        return
    by, on = attack.by, attack.on
    model = on.new.pop()
    on.taken.append(model)
    storage = attack.lead(attack.server, attack.chance.choice(("other-bytes", "other-files")))
    by.cache(by.next("first"), model.uri, on.group, attack.seconds, storage=storage)
    time.sleep(attack.chance.uniform(0, 2))
    on.cache(model.name, model.uri, on.group, float("inf"), storage={"key": on.key})


# The attacks by their name in the table, and their relative frequency.
ATTACKS: dict[str, tuple[str, Callable[[Attack], None], int]] = {
    "unreadable": ("a cache that nobody can read", unreadable, 2),
    "large": ("caches as large as may be", large, 1),
    "collide": ("names and claims that lead to another's volume", collide, 3),
    "false-store": ("another's URI, with a store of one's own", false_store, 6),
    "list-alone": ("another's URI, with a right to list alone", list_alone, 3),
    "first": ("another's new URI, asked for before", first, 2),
    "origin": ("an origin without an end", origin, 6),
    "never": ("models as large as the limit that never come", never, 2),
    "fill": ("models and pods that fill the disk", fill, 5),
    "certificates": ("certificates", certificates, 1),
    "addresses": ("addresses of the node", addresses, 1),
    "churn": ("one name, and another model each time", churn, 3),
}
