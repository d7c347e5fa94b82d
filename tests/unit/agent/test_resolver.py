from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from agent.credentials import CredentialRef, Credentials
from agent.credentials.resolver import CredentialResolver
from agent.credentials.secret_api import Secret, ServiceAccount
from agent.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Mapping

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
S3 = {"type": "s3", "access_key_id": "id", "secret_access_key": "key"}
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}


@dataclass
class FakeApi:
    """Objects of the one namespace that is looked into."""

    secrets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    accounts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)

    def secret(self, namespace: str, name: str) -> Secret:
        return Secret(namespace, name, self._of(self.secrets, namespace, name))

    def service_account(self, namespace: str, name: str) -> ServiceAccount:
        return ServiceAccount(namespace, name, self._of(self.accounts, namespace, name))

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
    return CredentialResolver(api, "jobs").resolve(ref)


def test_nothing_named_is_the_agents_own() -> None:
    assert CredentialResolver(FakeApi(), "jobs").resolve(None) is None


def test_a_service_accounts_secrets_in_order_and_read_anew() -> None:
    api = FakeApi(
        secrets={"one": {"HF_TOKEN": b"1"}, "two": {"HF_TOKEN": b"2", "AZ_CLIENT_ID": b"c"}},
        accounts={"reader": ("one", "two")},
    )
    resolver = CredentialResolver(api, "jobs")
    ref = CredentialRef(service_account="reader")
    assert resolver.resolve(ref) == Credentials.of({"HF_TOKEN": "2", "AZ_CLIENT_ID": "c"})
    api.secrets["two"] = {}
    assert resolver.resolve(ref) == Credentials.of({"HF_TOKEN": "1"})
    del api.secrets["one"]
    with pytest.raises(DownloadError, match="there is no one"):
        resolver.resolve(ref)


def test_an_account_without_secrets_is_not_the_agents_own() -> None:
    api = FakeApi(accounts={"default": ()})
    found = CredentialResolver(api, "jobs").resolve(CredentialRef(service_account="default"))
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
