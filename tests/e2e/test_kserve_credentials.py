"""KServe's contract, line by line: credentials (docs/kserve.md), with all caches at once."""

from __future__ import annotations

import base64
import json
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agent.structs.credentials import GCS_KEY_FILE
from crds.keys import model_key
from deploy.kube.kinds import CACHES, LOCAL_MODEL_NODES, NAMESPACE_CACHES
from deploy.local.errors import LocalError
from deploy.local.layout import CHECKOUT
from tests.content import weights
from tests.contract import servers_azure as azure
from tests.contract import servers_gs as google
from tests.contract import servers_s3 as s3
from tests.contract.servers_hf import Repo
from tests.e2e.kserve import (
    AZURE_APPLICATIONS_HOST,
    AZURE_HOST,
    AZURE_SIGN_IN_HOST,
    GOOGLE_HOST,
    GOOGLE_TOKENS_HOST,
    KServeNodesWorld,
)
from tests.unit.agent.certificates import make_authority
from tests.unit.agent.servers import Buckets, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deploy.kube.kinds import Kind, KubeObject
    from tests.contract.gate import Asked, Gate
    from tests.unit.agent.servers import Server

NODE = "node-1"
WEIGHTS = weights(10_001)
HF_TOKEN = "hf_readerSecret"
GOOGLE_TOKEN_URI = f"https://{GOOGLE_TOKENS_HOST}/token"
APPLICATION_SECRET = "application-s3cret"
PUBLIC = "public"


class ApplicationsGate(azure.SignInGate):
    """Azure's sign-in, and the storage as a host of its own has it."""

    def target(self, asked: Asked) -> str:
        return f"/{azure.ACCOUNT}{super().target(asked)}"


@dataclass(frozen=True)
class Case:
    """What a cache names, and what comes of it: its model, or a failure.

    store: where the model is. A failure has its kind, and texts of its message.
    """

    store: str
    names: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    texts: tuple[str, ...] = ()
    namespace: str = ""


def _account(name: str, **more: Any) -> dict[str, Any]:
    return {"serviceAccountName": name, **more}


def _key(key: str, **parameters: str) -> dict[str, Any]:
    return {"storage": {"key": key, "parameters": parameters}}


def _denied(store: str, names: dict[str, Any], *texts: str) -> Case:
    return Case(store, names, "Denied", texts)


NOWHERE = {"endpoint_url": "http://127.0.0.1:1"}
# Stands for the endpoint of the S3 server, which has none before it runs.
PLAIN = "http://plain.invalid"
CASES = {
    # Where they are looked for.
    "service-account": Case("plain", _account("reader")),
    "namespace-cache": Case("plain", _account("reader"), namespace="credentials"),
    "no-service-account": _denied("plain", _account("nobody"), "no ServiceAccount", "nobody"),
    "storage-key": Case("plain", _key("plain")),
    "storage-key-namespace": Case("plain", _key("plain"), namespace="credentials"),
    "no-storage-key": _denied("plain", _key("mine"), "storage-config has no key 'mine'"),
    "parameters": Case("plain", _key("nowhere", endpoint_url=PLAIN, region="us-east-1")),
    # Which of them counts.
    "key-first": Case("plain", _account("wrong") | _key("plain")),
    "wrong-key-first": _denied("plain", _account("reader") | _key("wrong"), "SignatureDoesNot"),
    "parameters-alone": Case("plain", _account("reader", storage={"parameters": NOWHERE})),
    "default": Case("plain", {"storage": {}}),
    "default-parameters": Case("plain", {"storage": {"parameters": NOWHERE}}),
    # A cache that names none has none: what is public is read, and nothing else.
    "none": _denied("plain", {}, "AccessDenied"),
    "none-public": Case("hub-public"),
    # The annotations of S3 secrets.
    "usehttps-0": Case("plain", _account("reader")),
    "usehttps-default": Case("plain", _account("over-tls"), "TLS"),
    "usehttps-1": Case("secure", _account("unverified")),
    "verifyssl-default": Case("secure", _account("verified"), "TLS"),
    "verifyssl-1": Case("secure", _account("verified-too"), "TLS"),
    "region": Case("recording", _account("far")),
    "region-parameters": Case("recording", _key("recording", region="south-8")),
    "anonymous": Case("secure-public", _account("anonymous")),
    "anonymous-private": _denied("secure", _account("anonymous")),
    # Other stores.
    "hf-token": Case("hub", _account("hub")),
    "hf-key": Case("hub", _key("hub")),
    "hf-wrong": _denied("hub", _account("hub-wrong"), "HF_TOKEN"),
    "hf-none": _denied("hub", {}),
    "gcs": Case("google", _account("google")),
    "gcs-key": Case("google", _key("google")),
    "gcs-stranger": _denied("google", _account("google-stranger")),
    "gcs-none": _denied("google", {}),
    "azure-client": Case("azure-applications", _account("azure-client")),
    "azure-client-wrong": _denied("azure-applications", _account("azure-wrong"), "AZ_CLIENT_ID"),
    "azure-access-key": Case("azure", _account("azure-key")),
    "azure-none": _denied("azure", {}),
}


class Stores:
    """Servers of every kind; each model in them is one file, `weights`."""

    def __init__(self, world: KServeNodesWorld, folder: Path, stack: ExitStack) -> None:
        self.world, self.folder = world, folder
        (folder / "s3").mkdir()
        authority = make_authority(folder / "authority")
        url = stack.enter_context(s3.s3_storage(folder / "s3", authority))
        self.secure = s3.Gateway(url, authority.bundle)
        self._publish()
        self.buckets = Buckets({s3.BUCKET: {}})
        self.recording: Server = stack.enter_context(serving(self.buckets))
        world.hub.tokens.add(HF_TOKEN)

        server = stack.enter_context(google.google_storage(folder))
        self.google = google.Bucket(server)
        self._gate(stack, google.TokenGate(server), GOOGLE_HOST, GOOGLE_TOKENS_HOST)

        self.azurite = stack.enter_context(azure.azure_storage(folder))
        world.clouds.lead(AZURE_HOST, self.azurite.server)
        gate = ApplicationsGate(self.azurite, APPLICATION_SECRET)
        self._gate(stack, gate, AZURE_APPLICATIONS_HOST, AZURE_SIGN_IN_HOST)

    def _publish(self) -> None:
        self.secure.client.create_bucket(Bucket=PUBLIC)
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": [f"arn:aws:s3:::{PUBLIC}", f"arn:aws:s3:::{PUBLIC}/*"],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.secure.client.put_bucket_policy(Bucket=PUBLIC, Policy=policy)

    def _gate(self, stack: ExitStack, gate: Gate, *hosts: str) -> None:
        stack.callback(gate.close)
        for host in hosts:
            self.world.clouds.lead(host, gate.url)

    def put(self, store: str, name: str) -> str:
        """Put a model there. Returns its URI."""
        puts: dict[str, Callable[[str], str]] = {
            "plain": self._put_plain,
            "secure": partial(self._put_secure, s3.BUCKET),
            "secure-public": partial(self._put_secure, PUBLIC),
            "recording": self._put_recording,
            "hub": partial(self._put_hub, {HF_TOKEN}),
            "hub-public": partial(self._put_hub, None),
            "google": self._put_google,
            "azure": partial(self._put_azure, AZURE_HOST),
            "azure-applications": partial(self._put_azure, AZURE_APPLICATIONS_HOST),
        }
        return puts[store](name)

    def _put_plain(self, name: str) -> str:
        (self.folder / name).mkdir()
        (self.folder / name / "weights").write_bytes(WEIGHTS)
        return self.world.s3.upload(self.folder / name, name)

    def _put_secure(self, bucket: str, name: str) -> str:
        self.secure.client.put_object(Bucket=bucket, Key=f"{name}/weights", Body=WEIGHTS)
        return f"s3://{bucket}/{name}"

    def _put_recording(self, name: str) -> str:
        self.buckets.objects[s3.BUCKET][f"{name}/weights"] = WEIGHTS
        return f"s3://{s3.BUCKET}/{name}"

    def _put_hub(self, readers: set[str] | None, name: str) -> str:
        self.world.hub.repos[f"org/{name}"] = repo = Repo(readers=readers, gated=True)
        repo.commit({"weights": WEIGHTS})
        return f"hf://org/{name}"

    def _put_google(self, name: str) -> str:
        self.google.upload(f"{name}/weights", WEIGHTS)
        return f"gs://{google.BUCKET}/{name}"

    def _put_azure(self, host: str, name: str) -> str:
        self.azurite.upload(f"{name}/weights", WEIGHTS)
        return f"https://{host}/{azure.CONTAINER}/{name}"

    # Secrets, in the forms of KServe's documentation.

    def lay_out_secrets(self) -> None:
        """Make the secret storage-config, and ServiceAccounts with a secret each."""
        origin = self.world.s3
        plain = {
            "type": "s3",
            "access_key_id": origin.access_key,
            "secret_access_key": origin.secret_key,
            "endpoint_url": origin.endpoint,
            "region": "us-east-1",
            "bucket": "models",
        }
        recording = plain | {"endpoint_url": self.recording.url, "region": "overridden"}
        key_file = google.key_file(GOOGLE_TOKEN_URI)
        entries = {
            "plain": plain,
            "wrong": plain | {"secret_access_key": "wrong"},
            "nowhere": plain | NOWHERE | {"region": "overridden"},
            "recording": recording,
            "hub": {"type": "hf", "token": HF_TOKEN},
            "google": {
                "type": "gs",
                "base64_service_account": base64.b64encode(key_file.encode()).decode(),
            },
        }
        self.world.secret("storage-config", {k: json.dumps(v) for k, v in entries.items()})
        self._lay_out_s3()
        self._attach("hub", {"HF_TOKEN": HF_TOKEN})
        self._attach("hub-wrong", {"HF_TOKEN": "hf_wrongSecret"})
        self._attach("google", {GCS_KEY_FILE: key_file})
        stranger = google.key_file(GOOGLE_TOKEN_URI, account=google.STRANGER)
        self._attach("google-stranger", {GCS_KEY_FILE: stranger})
        client = {
            "AZ_CLIENT_ID": azure.CLIENT,
            "AZ_CLIENT_SECRET": APPLICATION_SECRET,
            "AZ_TENANT_ID": azure.TENANT,
            "AZ_SUBSCRIPTION_ID": "0a0b0c0d-subscription",
        }
        self._attach("azure-client", client)
        self._attach("azure-wrong", client | {"AZ_CLIENT_SECRET": "wrong"})
        self._attach("azure-key", {"AZURE_STORAGE_ACCESS_KEY": self.azurite.key})

    def _lay_out_s3(self) -> None:
        origin = self.world.s3
        keys = {
            "AWS_ACCESS_KEY_ID": origin.access_key,
            "AWS_SECRET_ACCESS_KEY": origin.secret_key,
        }
        host = origin.endpoint.removeprefix("http://")
        for name in ("reader", "default"):
            self.world.reader(name)
        wrong = keys | {"AWS_SECRET_ACCESS_KEY": "wrong"}
        self._attach("wrong", wrong, endpoint=host, usehttps="0")
        self._attach("over-tls", keys, endpoint=host)
        recording = self.recording.url.removeprefix("http://")
        self._attach("far", keys, endpoint=recording, usehttps="0", region="south-7")

        keys = {"AWS_ACCESS_KEY_ID": s3.ACCESS, "AWS_SECRET_ACCESS_KEY": s3.SECRET}
        secure = {
            "endpoint": self.secure.endpoint.removeprefix("https://"),
            "usehttps": "1",
            "region": s3.REGION,
        }
        self._attach("unverified", keys, verifyssl="0", **secure)
        self._attach("verified", keys, **secure)
        self._attach("verified-too", keys, verifyssl="1", **secure)
        self._attach("anonymous", keys, verifyssl="0", useanoncredential="true", **secure)

    def _attach(self, name: str, data: dict[str, str], **annotations: str) -> None:
        self.world.secret(f"{name}-secret", data, **annotations)
        self.world.service_account(name, f"{name}-secret")


@dataclass(frozen=True)
class Scenario:
    """What the node's agent said of each model in the end, and what it has of it."""

    stores: Stores
    uris: dict[str, str]
    reports: dict[str, KubeObject]

    def weights(self, name: str) -> bytes | None:
        """The model on the node's disk."""
        file = self.stores.world.copy(NODE, self.uris[name]) / "weights"
        return file.read_bytes() if file.exists() else None


@pytest.fixture(scope="module")
def scenario(
    kserve_nodes: KServeNodesWorld, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenario]:
    world = kserve_nodes
    with ExitStack() as stack:
        stores = Stores(world, tmp_path_factory.mktemp("stores"), stack)
        stores.lay_out_secrets()
        uris = {name: stores.put(case.store, name) for name, case in CASES.items()}
        world.kserve_group("credentials", NODE)
        for name, case in CASES.items():
            named = json.loads(json.dumps(case.names).replace(PLAIN, world.s3.endpoint))
            world.kserve_cache(
                name, "credentials", namespace=case.namespace, sourceModelUri=uris[name], **named
            )

        def reports() -> dict[str, KubeObject]:
            node = world.find(LOCAL_MODEL_NODES, NODE) or {}
            told = {one["key"]: one for one in node.get("status", {}).get("models", ())}
            return {name: told.get(model_key(uri), {}) for name, uri in uris.items()}

        def as_expected() -> bool:
            return all(
                one.get("reason") == CASES[name].failure
                if CASES[name].failure
                else one.get("cached")
                for name, one in reports().items()
            )

        # Each test tells what has become of its own case.
        with suppress(LocalError):
            world.until(as_expected, "all to be there or to fail")
        yield Scenario(stores, uris, reports())
        for name, case in CASES.items():
            world.delete(*_cache(name, case))


def _cache(name: str, case: Case) -> tuple[Kind, str, str]:
    return (NAMESPACE_CACHES if case.namespace else CACHES, name, case.namespace)


@pytest.mark.parametrize("name", CASES)
def test_what_a_cache_names_decides_what_its_download_may_read(
    scenario: Scenario, name: str
) -> None:
    case, report = CASES[name], scenario.reports[name]
    assert report.get("reason", "") == case.failure, report
    assert scenario.weights(name) == (None if case.failure else WEIGHTS)
    for text in case.texts:
        assert text in report["message"]


def test_the_page_on_kserve_names_every_case() -> None:
    page = (CHECKOUT / "docs" / "kserve.md").read_text()
    assert [name for name in CASES if f"`{name}`" not in page] == []


def test_the_region_of_a_secret_signs_the_requests(scenario: Scenario) -> None:
    signed = [headers.get("Authorization", "") for *_, headers in scenario.stores.recording.seen]
    for region in ("south-7", "south-8"):
        assert any(f"/{region}/s3/aws4_request" in one for one in signed)
    assert not any("overridden" in one for one in signed)


def test_no_failure_tells_a_secret(scenario: Scenario) -> None:
    told = json.dumps(scenario.reports)
    hidden = [
        scenario.stores.world.s3.secret_key,
        s3.SECRET,
        HF_TOKEN,
        "hf_wrongSecret",
        APPLICATION_SECRET,
        scenario.stores.azurite.key,
    ]
    assert not [one for one in hidden if one in told]
    assert model_key(scenario.uris["hf-token"]) in told
