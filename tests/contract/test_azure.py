from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.sources import azure
from agent.sources.addresses import Rules
from agent.sources.azure import AzureSource
from agent.sources.azure_uris import is_blob_uri
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from tests.contract.gate import Answer
from tests.contract.servers_azure import (
    ACCOUNT,
    CLIENT,
    CONTAINER,
    HOST,
    IDENTITY_PATH,
    PUBLIC,
    TENANT,
    Azurite,
    Container,
    PublicContainer,
    SignedInContainer,
    azure_storage,
)
from tests.contract.suite import CONTENT, SourceContract, Store, bytes_of, failure_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with azure_storage(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
def container(azurite: Azurite) -> Container:
    return Container(azurite)


@pytest.fixture
def signed_in(azurite: Azurite) -> Iterator[SignedInContainer]:
    made = SignedInContainer(azurite)
    try:
        yield made
    finally:
        made.gate.close()


class TestKey(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, azurite: Azurite) -> Store:
        return Container(azurite)


class TestPublic(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, azurite: Azurite) -> Store:
        return PublicContainer(azurite)


class TestApplication(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, azurite: Azurite) -> Iterator[Store]:
        made = SignedInContainer(azurite)
        try:
            yield made
        finally:
            made.gate.close()


def test_a_listing_has_many_pages(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure, "PAGE", 2)
    model = container.resolve(container.put({f"{i}": b"x" for i in range(7)}))

    assert [file.path for file in model.files] == [f"{i}" for i in range(7)]


def test_a_whole_container_is_a_model(container: Container, azurite: Azurite) -> None:
    with azurite.client() as client:
        client.create_container("whole")
    azurite.upload("a/b", b"x", container="whole")

    for uri in (f"https://{HOST}/whole", f"azure://{HOST}/whole/"):
        assert [file.path for file in container.resolve(uri).files] == ["a/b"]


def test_a_missing_container_is_not_found(container: Container) -> None:
    error = failure_of(container, f"https://{HOST}/nothing/x", container.good)

    assert error.kind is FailureKind.NOT_FOUND


@pytest.mark.parametrize("given", ["uri", "setting"])
def test_a_signature_is_enough(container: Container, azurite: Azurite, given: str) -> None:
    uri = container.put({"a": b"1"})
    signature = azurite.signature()
    if given == "uri":
        model = container.source.resolve(f"{uri}?{signature}", container.nobody, None)
    else:
        known = container.settings(AZURE_STORAGE_SAS_TOKEN=signature)
        model = container.source.resolve(uri, known, None)

    assert bytes_of(model, model.files[0]) == b"1"


def test_a_signature_that_may_not_list_reads_one_blob(
    container: Container, azurite: Azurite
) -> None:
    uri = container.put({"model.gguf": CONTENT})
    query = azurite.signature(listing=False)
    model = container.source.resolve(f"{uri}/model.gguf?{query}", container.nobody, None)

    assert [file.path for file in model.files] == ["model.gguf"]
    assert bytes_of(model, model.files[0], 3, 7) == CONTENT[3:7]
    error = failure_of(container, f"{uri}?{query}", container.nobody)
    assert error.kind is FailureKind.DENIED
    assert "right to list (l)" in error.message


@pytest.mark.parametrize("label", ["gzip", "x-gzip", "br", "utf-8"])
def test_a_label_of_a_coding_changes_nothing_of_the_bytes(
    container: Container, azurite: Azurite, label: str
) -> None:
    uri = container.put({"plain": b"x"})
    name = uri.partition(f"/{CONTAINER}/")[2].replace("%20", " ")
    azurite.upload(f"{name}/model.tar.gz", CONTENT, label=label)

    for place in (uri, f"{uri}/model.tar.gz"):
        model = container.resolve(place)
        file = next(one for one in model.files if one.path == "model.tar.gz")
        assert file.size == len(CONTENT)
        assert bytes_of(model, file) == CONTENT
        assert bytes_of(model, file, 7, 40) == CONTENT[7:40]


@pytest.mark.parametrize("lifetime", [-60, 3600])
def test_no_message_has_a_signature(
    container: Container, azurite: Azurite, lifetime: float
) -> None:
    query = azurite.signature(lifetime=lifetime)
    signature = query.partition("sig=")[2].partition("&")[0]
    error = failure_of(container, f"https://{HOST}/{CONTAINER}/x/?{query}", container.nobody)

    assert error.kind in {FailureKind.DENIED, FailureKind.NOT_FOUND}
    assert signature
    assert signature not in error.message


def test_a_token_serves_many_requests(signed_in: SignedInContainer) -> None:
    uri = signed_in.put({"a": b"1", "b": b"2"})
    for _ in range(2):
        model = signed_in.resolve(uri)
        assert [bytes_of(model, file) for file in model.files] == [b"1", b"2"]

    assert signed_in.gate.sign_ins == 1


def test_a_token_is_replaced_before_it_expires(signed_in: SignedInContainer) -> None:
    gate = signed_in.gate
    gate.lifetime = 1
    model = signed_in.resolve(signed_in.put({"a": b"1"}))
    time.sleep(0.6)
    assert bytes_of(model, model.files[0]) == b"1"
    assert gate.sign_ins == 2


def test_a_refused_token_is_replaced(signed_in: SignedInContainer) -> None:
    model = signed_in.resolve(signed_in.put({"a": b"1"}))
    signed_in.gate.tokens.clear()
    with pytest.raises(DownloadError) as caught:
        bytes_of(model, model.files[0])

    assert caught.value.kind is FailureKind.DENIED
    assert bytes_of(model, model.files[0]) == b"1"


def test_a_workload_identity_of_the_agents(
    signed_in: SignedInContainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = signed_in.put({"a": b"1"})
    file = tmp_path / "token"
    settings = {
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_TENANT_ID": TENANT,
        "AZURE_AUTHORITY_HOST": signed_in.gate.url,
        "AZURE_FEDERATED_TOKEN_FILE": str(file),
        "AZURE_STORAGE_BLOB_ENDPOINT": f"{signed_in.gate.url}/{ACCOUNT}",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    error = failure_of(signed_in, uri, own_credentials())
    assert error.kind is FailureKind.DENIED
    assert "AZURE_FEDERATED_TOKEN_FILE" in error.message

    file.write_text(f"{signed_in.gate.secret}\n")
    model = signed_in.source.resolve(uri, own_credentials(), None)
    assert bytes_of(model, model.files[0]) == b"1"
    # A tenant must not name a file of the node's.
    assert failure_of(signed_in, uri, Credentials.of(settings)).kind is FailureKind.DENIED


def identity(
    signed_in: SignedInContainer, monkeypatch: pytest.MonkeyPatch, **settings: str
) -> dict[str, str]:
    """The environment of an agent on a node with managed identities."""
    environment = {
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": signed_in.gate.url,
        "AZURE_STORAGE_BLOB_ENDPOINT": f"{signed_in.gate.url}/{ACCOUNT}",
    } | settings
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.mark.parametrize(
    "named", [{"AZURE_CLIENT_ID": CLIENT}, {"AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential"}]
)
def test_a_managed_identity_of_the_agents_node(
    signed_in: SignedInContainer, monkeypatch: pytest.MonkeyPatch, named: dict[str, str]
) -> None:
    uri = signed_in.put({"a": b"1"})
    settings = identity(signed_in, monkeypatch, **named)
    for _ in range(2):
        model = signed_in.source.resolve(uri, own_credentials(), None)
        assert bytes_of(model, model.files[0]) == b"1"
    assert signed_in.gate.identity_asks == 1
    # A tenant must not get the token of the node, whatever its credentials hold.
    assert failure_of(signed_in, uri, Credentials.of(settings)).kind is FailureKind.DENIED
    assert signed_in.gate.identity_asks == 1


def test_a_node_without_the_managed_identity(
    signed_in: SignedInContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity(signed_in, monkeypatch, AZURE_CLIENT_ID="stranger")
    error = failure_of(signed_in, f"https://{HOST}/{CONTAINER}/x", own_credentials())

    assert error.kind is FailureKind.DENIED
    assert "(invalid_request)" in error.message
    assert "managed identity" in error.message


@pytest.mark.parametrize("status", [410, 429, 500])
def test_a_metadata_service_that_is_busy_is_asked_again(
    signed_in: SignedInContainer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    identity(signed_in, monkeypatch, AZURE_CLIENT_ID=CLIENT)
    monkeypatch.setattr(signed_in.gate, "answer", lambda _: Answer(status))
    error = failure_of(signed_in, f"https://{HOST}/{CONTAINER}/x", own_credentials())

    assert error.kind in {FailureKind.UNREACHABLE, FailureKind.THROTTLED}


def test_the_metadata_service_is_asked_where_no_source_may_lie_and_past_proxies(
    signed_in: SignedInContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loopback = ipaddress.ip_network("127.0.0.0/8")
    source = AzureSource(Transports(max_connections=4, rules=Rules(refused=(loopback,))))
    identity(signed_in, monkeypatch, AZURE_CLIENT_ID=CLIENT)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(DownloadError) as caught:
        source.resolve(f"https://{HOST}/{CONTAINER}/x", own_credentials(), None)

    assert caught.value.kind is FailureKind.DENIED
    assert "127.0.0.0/8" in caught.value.message
    assert [asked.path for asked in signed_in.gate.asked] == [IDENTITY_PATH]


def test_a_sign_in_in_a_refused_network_is_not_asked(signed_in: SignedInContainer) -> None:
    loopback = ipaddress.ip_network("127.0.0.0/8")
    source = AzureSource(Transports(max_connections=4, rules=Rules(refused=(loopback,))))
    with pytest.raises(DownloadError) as caught:
        source.resolve(f"https://{HOST}/{CONTAINER}/x", signed_in.good, None)

    assert caught.value.kind is FailureKind.DENIED
    assert signed_in.gate.asked == []


def test_a_sign_in_that_is_down_is_unreachable(signed_in: SignedInContainer) -> None:
    credentials = signed_in.application(AZURE_AUTHORITY_HOST="http://127.0.0.1:9")
    error = failure_of(signed_in, f"https://{HOST}/{CONTAINER}/x", credentials)

    assert error.kind is FailureKind.UNREACHABLE


@pytest.mark.parametrize(
    "metadata",
    [
        {"hdi_isfolder": "true"},
        {"Hdi_isfolder": "true"},
        {"HDI_IsFolder": "True"},
    ],
)
def test_folders_of_hierarchical_accounts_are_no_files(
    container: Container, azurite: Azurite, metadata: dict[str, str]
) -> None:
    uri = container.put({"sub/a": b"1"})
    folder = "/".join(uri.split("/")[4:]).replace("%20", " ") + "/sub"
    with azurite.client() as client:
        blob = client.get_blob_client(CONTAINER, folder)
        blob.upload_blob(b"", metadata=metadata)

    assert [file.path for file in container.resolve(uri).files] == ["sub/a"]
    with azurite.client() as client:
        client.get_blob_client(CONTAINER, f"{folder}/a").delete_blob()
    assert failure_of(container, f"{uri}/sub", container.good).kind is FailureKind.NOT_FOUND


def test_an_empty_blob_named_as_a_folder_is_no_file(container: Container, azurite: Azurite) -> None:
    uri = container.put({"sub/a": b"1", "empty": b""})
    azurite.upload("/".join(uri.split("/")[4:]).replace("%20", " ") + "/sub", b"")

    assert {file.path for file in container.resolve(uri).files} == {"sub/a", "empty"}


def test_an_archived_blob_is_told(container: Container, azurite: Azurite) -> None:
    uri = container.put({"a": b"1"})
    name = "/".join(uri.split("/")[4:]).replace("%20", " ") + "/a"
    with azurite.client() as client:
        client.get_blob_client(CONTAINER, name).set_standard_blob_tier("Archive")
    error = failure_of(container, uri, container.good)

    assert error.kind is FailureKind.UNSUPPORTED
    assert "archive tier" in error.message


def test_what_is_not_public_is_denied_to_nobody(container: Container, azurite: Azurite) -> None:
    azurite.upload("a", b"1", container=PUBLIC)
    uri = f"https://{HOST}/{PUBLIC}/a"
    assert container.source.resolve(uri, container.nobody, None).files[0].path == "a"

    error = failure_of(container, f"https://{HOST}/{CONTAINER}/a", container.nobody)
    assert error.kind is FailureKind.DENIED
    assert "without credentials" in error.message


@pytest.mark.parametrize(
    ("uri", "is_blob"),
    [
        ("azure://anything", True),
        (f"https://{HOST}/c/p", True),
        ("https://a.blob.core.chinacloudapi.cn/c", True),
        ("https://a.blob.core.usgovcloudapi.net/c", True),
        ("https://a.z12.blob.storage.azure.net/c", True),
        (f"http://{HOST}/c/p", False),
        ("https://a.file.core.windows.net/c", False),
        (f"https://{HOST}.evil.example/c", False),
        (f"https://evil.example/{HOST}", False),
        (f"https://{HOST}@evil.example/", False),
        ("https://[", False),
        ("s3://b/c", False),
    ],
)
def test_which_uris_are_blobs(uri: str, *, is_blob: bool) -> None:
    assert is_blob_uri(uri) is is_blob


@pytest.mark.parametrize(
    "uri",
    [
        "azure://container/path",
        f"azure://{HOST}",
        "azure://evil.example/c/p",
        "azure://[",
        f"https://{HOST}/c/p?download=1",
    ],
)
def test_what_names_no_container_is_unsupported(uri: str) -> None:
    with pytest.raises(DownloadError) as caught:
        azure.parse(uri)

    assert caught.value.kind is FailureKind.UNSUPPORTED
