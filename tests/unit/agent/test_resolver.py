from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from agent.credentials.permission import ANNOTATION
from agent.credentials.public_settings import anonymous
from agent.credentials.resolver import CredentialResolver
from agent.credentials.secret_api import Secret, ServiceAccount
from agent.structs.credentials import CredentialRef, Credentials, Unlisted
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.requests import Requester

if TYPE_CHECKING:
    from collections.abc import Mapping

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
S3 = {"type": "s3", "access_key_id": "id", "secret_access_key": "key"}
OWN = Credentials.of({"AWS_ENDPOINT_URL": "http://here", "HF_TOKEN": "hf_own"}, own=True)
NOBODY = Credentials.of({"AWS_ENDPOINT_URL": "http://here", "awsAnonymousCredential": "true"})
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}


@dataclass
class FakeApi:
    """Objects of the one namespace that is looked into."""

    secrets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    accounts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    # The annotations of a secret or an account.
    annotations: dict[str, dict[str, str]] = field(default_factory=dict)

    def secret(self, namespace: str, name: str) -> Secret:
        data = self._of(self.secrets, namespace, name)
        return Secret(namespace, name, data, self.annotations.get(name, {}))

    def service_account(self, namespace: str, name: str) -> ServiceAccount:
        secrets = self._of(self.accounts, namespace, name)
        return ServiceAccount(namespace, name, secrets, self.annotations.get(name, {}))

    def config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        found: dict[str, str] = self._of(self.config_maps, namespace, name)
        return found

    def _of(self, objects: Mapping[str, Any], namespace: str, name: str) -> Any:
        assert namespace == "jobs"
        if name not in objects:
            raise DownloadError(FailureKind.DENIED, f"there is no {name}")
        return objects[name]


def of_entry(entry: Mapping[str, object], api: FakeApi | None = None, **parameters: str) -> Any:
    api = api or FakeApi()
    api.secrets["storage-config"] = {"k": json.dumps(entry).encode()}
    ref = CredentialRef(storage_key="k", parameters=tuple(sorted(parameters.items())))
    return resolver(api).resolve(Requester("", ref))


def resolver(api: FakeApi, unlisted: Unlisted = Unlisted.REFUSE) -> CredentialResolver:
    return CredentialResolver(api, "jobs", unlisted, OWN)


def of_account(api: FakeApi, name: str = "reader", namespace: str = "", **how: Unlisted) -> Any:
    ref = CredentialRef(service_account=name)
    return resolver(api, **how).resolve(Requester(namespace, ref))


def test_nothing_named_is_the_agents_own() -> None:
    assert resolver(FakeApi()).resolve(Requester()) == OWN


def test_a_service_accounts_secrets_in_order_and_read_anew() -> None:
    api = FakeApi(
        secrets={"one": {"HF_TOKEN": b"1"}, "two": {"HF_TOKEN": b"2", "AZ_CLIENT_ID": b"c"}},
        accounts={"reader": ("one", "two")},
    )
    assert of_account(api) == Credentials.of({"HF_TOKEN": "2", "AZ_CLIENT_ID": "c"})
    api.secrets["two"] = {}
    assert of_account(api) == Credentials.of({"HF_TOKEN": "1"})
    del api.secrets["one"]
    with pytest.raises(DownloadError, match="there is no one"):
        of_account(api)


def test_an_account_without_secrets_is_not_the_agents_own() -> None:
    api = FakeApi(accounts={"default": ()})
    found = of_account(api, "default")
    assert found == Credentials.of({})
    assert found is not None


def test_an_entry_with_parameters() -> None:
    found = of_entry(S3, endpoint_url="http://m")
    assert found == Credentials.of(KEYS | {"AWS_ENDPOINT_URL": "http://m"})
    assert "key" not in repr(found)


def test_certificates_of_a_config_map() -> None:
    api = FakeApi(config_maps={"ca": {"cabundle.crt": PEM + "\n", "b.crt": PEM + "b"}})
    entry = S3 | {"cabundle_configmap": "ca"}
    assert of_entry(entry, api) == Credentials.of(KEYS | {"AWS_CA_BUNDLE_PEM": PEM})
    named = entry | {"ca_bundle": "/etc/ssl/custom-certs/b.crt"}
    assert of_entry(named, api) == Credentials.of(KEYS | {"AWS_CA_BUNDLE_PEM": PEM + "b"})


def test_a_config_map_that_is_not_needed_is_not_read() -> None:
    entry = S3 | {"cabundle_configmap": "missing"}
    certificate = of_entry(entry | {"certificate": PEM})
    assert certificate == Credentials.of(KEYS | {"AWS_CA_BUNDLE_PEM": PEM})
    unverified = of_entry(entry | {"verify_ssl": "0"})
    assert unverified == Credentials.of(KEYS | {"S3_VERIFY_SSL": "0"})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"other": PEM}, "the ConfigMap jobs/ca has no key cabundle.crt"),
        ({"cabundle.crt": "x"}, "cabundle.crt of the ConfigMap jobs/ca is no certificate"),
    ],
)
def test_config_maps_without_certificates(texts: dict[str, str], message: str) -> None:
    api = FakeApi(config_maps={"ca": texts})
    with pytest.raises(DownloadError, match=message):
        of_entry(S3 | {"cabundle_configmap": "ca"}, api)


TEAM, BOTH, EVERY = {ANNOTATION: "team"}, {ANNOTATION: " other , team"}, {ANNOTATION: "*"}
OTHER, NONE = {ANNOTATION: "other"}, {ANNOTATION: ""}


@pytest.mark.parametrize("unlisted", Unlisted)
@pytest.mark.parametrize(
    ("account", "one", "two", "allowed"),
    [
        (TEAM, {}, {}, True),
        (BOTH, {}, {}, True),
        (EVERY, TEAM, {}, True),
        ({}, TEAM, EVERY, True),
        # Each that has a list must have the namespace in it.
        (OTHER, {}, {}, False),
        (NONE, {}, {}, False),
        (TEAM, OTHER, {}, False),
        (OTHER, TEAM, TEAM, False),
        ({}, TEAM, OTHER, False),
        # What lists nothing is as the flag says, if the account does not speak for it.
        ({}, {}, {}, None),
        ({}, TEAM, {}, None),
    ],
)
def test_an_account_and_its_secrets_say_which_namespaces_may_use_them(
    account: dict[str, str],
    one: dict[str, str],
    two: dict[str, str],
    allowed: bool | None,
    unlisted: Unlisted,
) -> None:
    api = FakeApi(
        secrets={"one": {"HF_TOKEN": b"s3cret"}, "two": {}},
        accounts={"reader": ("one", "two")},
        annotations={"reader": account, "one": one, "two": two},
    )
    if allowed or (allowed is None and unlisted is Unlisted.ALLOW):
        found = of_account(api, namespace="team", unlisted=unlisted)
        assert found == Credentials.of({"HF_TOKEN": "s3cret"})
    else:
        with pytest.raises(DownloadError) as caught:
            of_account(api, namespace="team", unlisted=unlisted)
        assert caught.value.kind is FailureKind.DENIED
        assert ANNOTATION in caught.value.message
        assert "team" in caught.value.message
        assert "s3cret" not in caught.value.message
    # The administrator's caches ask nobody.
    assert of_account(api, unlisted=unlisted) == Credentials.of({"HF_TOKEN": "s3cret"})


def test_an_account_without_secrets_must_list_the_namespace_too() -> None:
    api = FakeApi(accounts={"default": ()})
    with pytest.raises(DownloadError, match="the ServiceAccount jobs/default does not say"):
        of_account(api, "default", "team")
    api.annotations["default"] = TEAM
    assert of_account(api, "default", "team") == Credentials.of({})


@pytest.mark.parametrize(
    ("annotations", "allowed"),
    [
        ({f"{ANNOTATION}.k": "team"}, True),
        ({f"{ANNOTATION}.k": "team", ANNOTATION: "other"}, True),
        ({f"{ANNOTATION}.k": "other", ANNOTATION: "*"}, False),
        ({f"{ANNOTATION}.other": "team"}, False),
        (TEAM, True),
        ({}, False),
    ],
)
def test_the_list_of_a_key_counts_before_that_of_its_secret(
    annotations: dict[str, str],
    allowed: bool,
) -> None:
    api = FakeApi(
        secrets={"storage-config": {"k": json.dumps(S3).encode()}},
        annotations={"storage-config": annotations},
    )
    asked = Requester("team", CredentialRef(storage_key="k"))
    if allowed:
        assert resolver(api).resolve(asked) == Credentials.of(KEYS)
    else:
        with pytest.raises(DownloadError, match="the key 'k' of the secret jobs/storage-config"):
            resolver(api).resolve(asked)


def test_the_agents_own_are_credentials_without_a_list() -> None:
    assert resolver(FakeApi()).resolve(Requester("team")) == NOBODY
    assert resolver(FakeApi(), Unlisted.ALLOW).resolve(Requester("team")) == OWN


def test_nobody_asks_the_agents_stores_without_its_secrets() -> None:
    secrets = {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_SESSION_TOKEN": "token",
        "AWS_PROFILE": "p",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/f",
        "HF_TOKEN": "hf",
        "AZURE_STORAGE_ACCESS_KEY": "key",
        "AZURE_STORAGE_SAS_TOKEN": "sig",
        "GOOGLE_APPLICATION_CREDENTIALS": "/f",
        "HADOOP_USER_NAME": "hdfs",
    }
    own = Credentials.of(secrets | {"AWS_ENDPOINT_URL": "http://here", "AWS_REGION": ""}, own=True)
    assert anonymous(own) == NOBODY
