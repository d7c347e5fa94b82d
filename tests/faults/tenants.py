"""Part f: two tenants who attack each other with all that their rights allow, and an administrator.

Each tenant is victim and attacker. The module `victims` has the checks, `attacks` the attacks.
"""

from __future__ import annotations

import base64
import json
import random
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import requests

from agent.credentials.permission import ANNOTATION
from agent.structs.credentials import DEFAULT_NAMESPACE
from crds.base import GROUP as API_GROUP
from crds.keys import model_key
from deploy.kube.client import KubeClient
from deploy.kube.errors import ApiError
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    PLACEMENTS,
    PODS,
    VOLUMES,
)
from deploy.local import identities
from deploy.local.errors import LocalError
from deploy.local.manifests import MANAGER, established
from deploy.local.users import ServiceAccount, kubeconfig
from deploy.local.waiting import wait_until
from tests.e2e.kserve_crds import OPEN, kserves
from tests.e2e.world import GRACE_SECONDS, RETURN_SECONDS, World
from tests.faults import clusters, hostile
from tests.faults.attacks import (
    ATTACKS,
    UNREADABLE,
    Attack,
    Tenant,
    cache_object,
    pod_object,
    stored_name,
)
from tests.faults.disk import Model, read_tree
from tests.faults.report import Row
from tests.faults.victims import Victim, Watch, size_below

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from deploy.kube.kinds import KubeObject
    from deploy.local.cluster import Cluster

PART = "tenants"
ADMIN = "admin"
# Names that collide: <cache>-<group>-<namespace> is the same for the first models of both tenants.
TENANTS = {"team": "gpu-big", "big-team": "gpu"}
GROUPS = ("gpu", "gpu-big")
NODES = ("node-1", "node-2")
SERVED = "served"
LIMIT = 64 << 20
GOOD, SCRATCHED = "good", "scratched"
PINNED, IDLE = "pinned", "idle"
MODELS_TO_FILL, MODEL_BYTES = 12, 6 << 20
NEW_MODELS = 60
DAMAGE = "damage"
DAMAGE_SHARE = 0.03
REFUSES_SECONDS = (6.0, 20.0)
PAUSE_SECONDS = (0.1, 0.8)
SHOW_SECONDS = 20.0
# Fast enough to find a bad byte soon.
AGENT_ARGS = ("--scrub-interval-seconds", "5", "--scrub-bytes-per-second", "100Mi")
# New names that may be left in /tmp.
TMP_SLACK_BYTES = 1 << 20
START_SECONDS = 90.0
REST_SECONDS = RETURN_SECONDS + 2 * GRACE_SECONDS


def check(only: Collection[str]) -> None:
    """Raise ValueError unless these are names of attacks."""
    names = [*ATTACKS, DAMAGE]
    if unknown := sorted(set(only) - set(names)):
        raise ValueError(
            f"there is no attack {', '.join(unknown)}: take some of {', '.join(names)}"
        )


def run(work: Path, seed: int, seconds: float, only: Collection[str] = ()) -> list[Row]:
    """Run attacks for `seconds`, then wait until they are gone. Returns the results.

    `only`: the names of the attacks; empty: all.
    """
    owned = {name: dict(_objects(name, seed)) for name in (ADMIN, *TENANTS)}
    tmp = work / "tmp"
    tmp.mkdir()
    with (
        hostile.serve(owned, list(TENANTS)) as origins,
        clusters.running(
            work / "local",
            len(NODES),
            PART,
            overlay="standalone",
            default_storage_class=True,
            agent_env={"TMPDIR": str(tmp)},
            agent_args=AGENT_ARGS,
            before=partial(_store_unreadable, work / "local"),
        ) as cluster,
    ):
        feud = _Feud(cluster, origins, owned, random.Random(seed), tmp, only)
        feud.prepare()
        feud.rage(seconds)
        sys.stderr.write(f"{PART}: quiet\n")
        feud.settle()
        feud.take()
        return list(feud.rows.values())


def _objects(owner: str, seed: int) -> Iterator[tuple[str, bytes]]:
    """The objects of an owner's bucket, which are the files of all its models."""
    chance = random.Random(f"{seed}-{owner}")
    # Each size is unique, so that a size in a status shows whose copy was reported.
    own = 10_007 * len(owner)
    sizes = {f"{GOOD}/config.json": 3_001, f"{GOOD}/weights": 3_140_003 + own}
    if owner == ADMIN:
        sizes |= {f"{PINNED}/weights": 2_718_281, f"{IDLE}/weights": 1_618_033}
    sizes |= {f"{SCRATCHED}/weights": 1_234_577 + own}
    sizes |= {f"fill-{n}/weights": MODEL_BYTES + n for n in range(MODELS_TO_FILL)}
    sizes |= {f"new-{n}/weights": 100_000 + n for n in range(NEW_MODELS)}
    for key, size in sizes.items():
        yield key, chance.randbytes(size)


def _model(owner: str, name: str, objects: hostile.Objects) -> Model:
    prefix = f"{name}/"
    files = {
        key.removeprefix(prefix): data for key, data in objects.items() if key.startswith(prefix)
    }
    return Model(name, f"s3://{hostile.bucket_of(owner)}/{name}", files)


def _store_unreadable(folder: Path) -> None:
    """Store caches of both tenants that exceed the limits of the CRDs, before the limits apply."""
    api = KubeClient.connect(folder / "kubeconfig")
    crd = kserves(NAMESPACE_CACHES.plural)
    schema = {"type": "object", "properties": {"spec": OPEN, "status": OPEN}}
    crd["spec"]["versions"][0]["schema"] = {"openAPIV3Schema": schema}
    api.apply(crd, manager=MANAGER)
    name = crd["metadata"]["name"]
    wait_until(lambda: established(api, [name]), "the CRD without limits", seconds=30)
    for tenant, group in TENANTS.items():
        api.apply(_namespace(tenant), manager=MANAGER)
        for number, spec in enumerate(UNREADABLE):
            obj = cache_object(stored_name(number), "s3://bucket/m", group, **spec)
            obj["metadata"]["namespace"] = tenant
            api.create(obj)


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


class _Feud:
    """Two tenants and an administrator on a cluster, and the attacks between them."""

    def __init__(
        self,
        cluster: Cluster,
        origins: hostile.Origins,
        owned: dict[str, hostile.Objects],
        chance: random.Random,
        tmp: Path,
        only: Collection[str],
    ) -> None:
        # No origins of the end-to-end tests are needed.
        self._world = World(cluster, cast("Any", None), cast("Any", None))
        self._cluster, self._origins, self._chance, self._tmp = cluster, origins, chance, tmp
        self._owned, self._only = owned, set(only) or {*ATTACKS, DAMAGE}
        self._tenants: list[Tenant] = []
        self._admins = {name: _model(ADMIN, name, owned[ADMIN]) for name in (PINNED, IDLE)}
        self._victims: list[Victim] = []
        self._web = requests.Session()
        self._web.trust_env = False
        # The owners whose stores refuse requests, and until when (monotonic).
        self._refusing: dict[str, float] = {}
        self._new: list[tuple[Tenant, Model]] = []
        self.rows = {
            key: Row(PART, text) for key, (text, _, _) in ATTACKS.items() if key in self._only
        }
        if DAMAGE in self._only:
            self.rows[DAMAGE] = Row(PART, "a bad byte while the store refuses")

    # Before the attacks

    def prepare(self) -> None:
        """Make groups, tenants with their rights, and the models that must stay unchanged."""
        for node in NODES:
            self._world.node(node, *GROUPS)
        for group in GROUPS:
            self._world.group(group, storageLimit=str(LIMIT))
        self._world.namespace(SERVED, models=SERVED)
        self._give_keys()
        self._make_administrators_caches()
        self._tenants = [self._make_tenant(name) for name in TENANTS]
        for tenant in self._tenants:
            for model in (tenant.good, tenant.scratched):
                tenant.cache(
                    model.name, model.uri, tenant.group, float("inf"), storage={"key": tenant.key}
                )
                scratched = model is tenant.scratched
                self._victims.append(
                    Victim(
                        model,
                        tenant.name,
                        tenant.group,
                        tenant.name,
                        NODES,
                        has_pod=not scratched,
                        scratched=scratched,
                    )
                )
        if problems := self._wait(self._unready, "the models of all", START_SECONDS):
            raise RuntimeError("; ".join(problems))
        for tenant in self._tenants:
            for node in NODES:
                claim = f"{tenant.good.name}-{tenant.group}"
                pod = pod_object(f"reader-{node}", node, claim, tenant.good.key)
                tenant.make(PODS, pod, float("inf"))
            # These objects do not belong to an attack.
            tenant.made.clear()
        self._tmp_before = size_below(self._tmp)
        self._watch = Watch(self._cluster, self._victims, NODES, self._tmp)

    def _give_keys(self) -> None:
        """Make a key for each store, whose annotation lists only the owner's namespace."""
        entries = {
            owner: {
                "type": "s3",
                "access_key_id": owner,
                "secret_access_key": "secret",
                "endpoint_url": url,
                "region": "us-east-1",
            }
            for owner, url in self._origins.stores.items()
        }
        self._world.make(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": "storage-config",
                    "namespace": DEFAULT_NAMESPACE,
                    "annotations": {f"{ANNOTATION}.{owner}": owner for owner in TENANTS},
                },
                "data": {
                    owner: base64.b64encode(json.dumps(entry).encode()).decode()
                    for owner, entry in entries.items()
                },
            }
        )

    def _make_administrators_caches(self) -> None:
        importance: dict[str, dict[str, Any]] = {
            PINNED: {"retention": "Pinned"},
            IDLE: {"priority": 100},
        }
        for name, model in self._admins.items():
            self._world.cache(
                name,
                model.uri,
                GROUPS[0],
                modelSize=str(model.size),
                storage={"key": ADMIN},
                namespaceSelector={"matchLabels": {"models": SERVED}},
                **importance[name],
            )
            self._victims.append(Victim(model, "", GROUPS[0], SERVED, NODES))

    def _make_tenant(self, name: str) -> Tenant:
        self._world.make(_namespace(name))
        for obj in _rights(name):
            self._world.make(obj)
        token = identities.token(self._world.api, ServiceAccount(name, "tenant"))
        path = self._cluster.layout.user_kubeconfig(name)
        path.write_text(
            kubeconfig(
                server=self._world.api.server,
                authority=self._cluster.layout.certificate,
                user=name,
                token=token,
            )
        )
        objects = self._owned[name]
        return Tenant(
            name=name,
            api=KubeClient.connect(path),
            group=TENANTS[name],
            key=name,
            harmful=self._origins.harmful[name],
            good=_model(name, GOOD, objects),
            scratched=_model(name, SCRATCHED, objects),
            served=[_model(name, f"fill-{n}", objects) for n in range(MODELS_TO_FILL)],
            new=[_model(name, f"new-{n}", objects) for n in range(NEW_MODELS)],
        )

    # The attacks

    def rage(self, seconds: float) -> None:
        """Do attacks in a random order that depends on the seed."""
        deadline = time.monotonic() + seconds
        show_at = time.monotonic() + SHOW_SECONDS
        names = [name for name in ATTACKS if name in self._only]
        weights = [ATTACKS[name][2] for name in names]
        while (now := time.monotonic()) < deadline:
            for tenant in self._tenants:
                tenant.unmake(now)
            self._end_refusals(now)
            by, on = self._chance.sample(self._tenants, 2)
            if DAMAGE in self.rows and (not names or self._chance.random() < DAMAGE_SHARE):
                self._damage(on)
            elif names:
                self._attack(self._chance.choices(names, weights)[0], by, on)
            self._look_at_new()
            time.sleep(self._chance.uniform(*PAUSE_SECONDS))
            if now > show_at:
                show_at = now + SHOW_SECONDS
                self._show()

    def _attack(self, name: str, by: Tenant, on: Tenant) -> None:
        attack = Attack(
            by=by,
            on=on,
            administrators=list(self._admins.values()),
            groups=GROUPS,
            nodes=NODES,
            limit=LIMIT,
            stores=self._origins.stores,
            chance=self._chance,
        )
        try:
            ATTACKS[name][1](attack)
        except ApiError as error:
            self._watch.note(f"{name}: {error}")
        self.rows[name].injected += 1

    def _show(self) -> None:
        objects = {tenant.name: len(tenant.made) for tenant in self._tenants}
        refused = sum(tenant.refused for tenant in self._tenants)
        attacks = sum(row.injected for row in self.rows.values())
        sys.stderr.write(
            f"{PART}: {attacks} attacks; objects {objects}, {refused} refused; "
            f"{len(self._watch.problems)} problems\n"
        )

    def _damage(self, on: Tenant) -> None:
        """Corrupt a byte in a copy of the victim, while its store refuses all requests."""
        if on.name in self._refusing:
            return
        self._tell_store(on, hostile.REFUSE)
        self._refusing[on.name] = time.monotonic() + self._chance.uniform(*REFUSES_SECONDS)
        node = self._chance.choice(NODES)
        files = dict(on.scratched.files)
        name = self._chance.choice(sorted(files))
        files[name] = bytes([files[name][0] ^ 255]) + files[name][1:]
        self._watch.damage[on.scratched.key, node] = files
        path = self._world.copy(node, on.scratched.uri) / name
        if not path.exists():
            # The copy is being repaired.
            return
        mode = path.stat().st_mode
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.write(files[name][:1])
        path.chmod(mode)
        self.rows[DAMAGE].injected += 1

    def _end_refusals(self, now: float) -> None:
        for tenant in self._tenants:
            if tenant.name in self._refusing and self._refusing[tenant.name] <= now:
                del self._refusing[tenant.name]
                self._tell_store(tenant, hostile.SERVE)

    def _tell_store(self, tenant: Tenant, what: str) -> None:
        url = self._origins.stores[tenant.name] + what
        self._web.post(url, timeout=30).raise_for_status()

    def _look_at_new(self) -> None:
        """Check that Ready caches of the victim have its files, whoever requested them first."""
        for tenant in self._tenants:
            for model in _new_models(tenant):
                self._check_new(tenant, model)

    def _check_new(self, tenant: Tenant, model: Model) -> None:
        victim = Victim(model, tenant.name, tenant.group, tenant.name, NODES)
        try:
            ready = self._watch.condition(victim).get("status") == "True"
            claim = self._world.find(CLAIMS, victim.claim, tenant.name)
        except requests.RequestException as error:
            self._watch.note(f"the API server: {error}")
            return
        bound = claim is not None and claim.get("status", {}).get("phase") == "Bound"
        if not ready and not bound:
            return
        for node in NODES:
            tree = read_tree(self._world.copy(node, model.uri))
            if tree is None and self._watch.may_be_evicted(victim, node):
                continue
            if tree != model.files and (ready or tree is not None):
                what = "nothing" if tree is None else sorted((n, len(d)) for n, d in tree.items())
                self._watch.note(
                    f"{node}: {victim} is {'Ready' if ready else 'bound'}, and there is {what}",
                    model.size,
                )

    # After the attacks

    def settle(self) -> None:
        """Delete the objects of all attacks, and wait until all their effects are gone."""
        self._end_refusals(float("inf"))
        for tenant in self._tenants:
            mine = {("localmodelnamespacecaches", model.name) for model in _new_models(tenant)}
            for what in tenant.made.keys() - mine:
                tenant.made[what] = 0.0
            for number in range(len(UNREADABLE)):
                tenant.made["localmodelnamespacecaches", stored_name(number)] = 0.0
            tenant.unmake(1.0)
        self._until(self._unready, "the models of all")
        # Caches that were made late must be Ready, too.
        self._until(self._new_unready, "the new models")
        self._look_at_new()
        for tenant in self._tenants:
            tenant.unmake(float("inf"))
        self._until(self._left, "nothing to be left")
        self._watch.end()

    def _until(self, problems: Callable[[], list[str]], what: str) -> None:
        for problem in self._wait(problems, what, REST_SECONDS):
            self._watch.note(f"in the end: {problem}")

    def _wait(self, problems: Callable[[], list[str]], what: str, seconds: float) -> list[str]:
        """Wait until there are no problems. Returns those that are left at the end."""
        try:
            wait_until(lambda: not problems(), what, seconds=seconds)
        except LocalError:
            return problems()
        return []

    def _unready(self) -> list[str]:
        """The problems of the caches and claims that must stay."""
        found = []
        for victim in self._victims:
            for kind in ("Ready", "ClaimsBound"):
                obj = self._world.find(
                    NAMESPACE_CACHES if victim.namespace else CACHES,
                    victim.model.name,
                    victim.namespace,
                )
                conditions = (obj or {}).get("status", {}).get("conditions", ())
                one: KubeObject = next((c for c in conditions if c["type"] == kind), {})
                if one.get("status") != "True":
                    found.append(f"{victim} is not {kind}: {one.get('message')}")
            found += [
                f"{node}: {victim} is not whole"
                for node in NODES
                if read_tree(self._world.copy(node, victim.model.uri)) != victim.model.files
            ]
        return found

    def _new_unready(self) -> list[str]:
        return [
            f"{tenant.name}/{model.name} is not Ready: {ready.get('message')}"
            for tenant in self._tenants
            for model in _new_models(tenant)
            for ready in [
                self._watch.condition(Victim(model, tenant.name, tenant.group, tenant.name, NODES))
            ]
            if ready.get("status") != "True"
        ]

    def _left(self) -> list[str]:
        """The objects and files that should be gone."""
        api, found = self._world.api, []
        keys = {victim.model.key for victim in self._victims}
        names = {(victim.namespace, victim.model.name) for victim in self._victims}
        for cache in api.list(NAMESPACE_CACHES):
            meta = cache["metadata"]
            if (meta["namespace"], meta["name"]) not in names:
                found.append(f"the cache {meta['namespace']}/{meta['name']} is there")
        for node in NODES:
            obj = api.get(LOCAL_MODEL_NODES, node)
            for part, listed in (
                ("spec", obj["spec"].get("localModels", ())),
                ("status", obj.get("status", {}).get("models", ())),
            ):
                more = {_key(model) for model in listed} - keys
                found += [f"{node}: its {part} has {key}" for key in sorted(more)]
            disk = self._cluster.nodes_dir / node
            for folder in (disk / "models", disk / ".localmodel"):
                more = {path.name for path in folder.iterdir()} - keys - {"lock"}
                found += [f"{node}: {folder.name}/{name} is left" for name in sorted(more)]
        for placement in api.list(PLACEMENTS):
            more = {_key(model) for model in placement["spec"].get("models", ())} - keys
            found += [f"the plan {placement['metadata']['name']} has {key}" for key in sorted(more)]
        claims = {victim.claim for victim in self._victims}
        for namespace in (*TENANTS, SERVED):
            more = {c["metadata"]["name"] for c in api.list(CLAIMS, namespace)} - claims
            found += [f"the claim {namespace}/{name} is there" for name in sorted(more)]
        volumes = len(api.list(VOLUMES))
        if volumes != len(self._victims):
            found.append(f"there are {volumes} volumes for {len(self._victims)} claims")
        if (now := size_below(self._tmp)) > self._tmp_before + TMP_SLACK_BYTES:
            found.append(f"/tmp of the agents has {now} bytes, and had {self._tmp_before}")
        return found

    def take(self) -> None:
        """Count the results. A problem cannot be assigned to one of the attacks."""
        watch = self._watch
        memory = ", ".join(f"{name} {size >> 20} MiB" for name, size in watch.most_memory.items())
        sys.stderr.write(
            f"{PART}: {watch.reads} reads, the slowest took {watch.slowest_read:.2f} s; at most "
            f"{memory}, {watch.most_tmp >> 10} KiB in /tmp\n"
        )
        first = next(iter(self.rows.values()))
        first.lost, first.failures = watch.lost, watch.descriptions()
        for row in self.rows.values():
            row.survived = 0 if watch.problems else row.injected


def _key(model: KubeObject) -> str:
    """The key of a model in a plan, or in a node's lists."""
    return str(model.get("key") or model_key(model["sourceModelUri"]))


def _new_models(tenant: Tenant) -> list[Model]:
    """The new models that a tenant requested after another tenant."""
    made = {name for plural, name in tenant.made if plural == NAMESPACE_CACHES.plural}
    return [model for model in tenant.taken if model.name in made]


def _rights(namespace: str) -> list[dict[str, Any]]:
    """A tenant's identity, and what it may do: caches, claims and pods of its namespace."""
    metadata = {"name": "tenant", "namespace": namespace}
    rules = [
        {
            "apiGroups": [API_GROUP],
            "resources": [NAMESPACE_CACHES.plural],
            "verbs": ["*"],
        },
        {"apiGroups": [""], "resources": [CLAIMS.plural, PODS.plural], "verbs": ["*"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "tenant"},
            "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": namespace}],
        },
    ]
