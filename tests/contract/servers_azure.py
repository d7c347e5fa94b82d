"""Azurite, which checks keys and signatures, and a gate of ours before it that asks for tokens."""

from __future__ import annotations

import base64
import json
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ContainerSasPermissions,
    ContentSettings,
    ResourceTypes,
    generate_account_sas,
    generate_container_sas,
)

from agent.sources.azure import AzureSource
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from deploy.local import build
from deploy.local.ports import free_ports
from tests.contract.gate import Answer, Asked, Gate, running
from tests.contract.suite import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ACCOUNT = "modelstore"
HOST = f"{ACCOUNT}.blob.core.windows.net"
CONTAINER = "models"
PUBLIC = "public"
TENANT = "0a0b0c0d-tenant"
CLIENT = "reader"
IDENTITY_PATH = "/metadata/identity/oauth2/token"


@dataclass(frozen=True)
class Azurite:
    """A running server, and the key of its account."""

    server: str
    key: str

    @property
    def endpoint(self) -> str:
        return f"{self.server}/{ACCOUNT}"

    def signature(
        self, *, listing: bool = True, reading: bool = True, lifetime: float = 3600
    ) -> str:
        """A shared access signature of the container of models."""
        return generate_container_sas(
            ACCOUNT,
            CONTAINER,
            account_key=self.key,
            permission=ContainerSasPermissions(read=reading, list=listing),
            expiry=datetime.now(UTC) + timedelta(seconds=lifetime),
        )

    def upload(
        self, name: str, content: bytes, *, container: str = CONTAINER, label: str | None = None
    ) -> None:
        settings = ContentSettings(content_encoding=label)
        with self.client() as client:
            blob = client.get_blob_client(container, name)
            blob.upload_blob(content, overwrite=True, content_settings=settings)

    def client(self) -> BlobServiceClient:
        return BlobServiceClient(self.endpoint, credential=self.key)


class SignInGate(Gate):
    """Azure's sign-in, and its storage behind it for those who have a token."""

    def __init__(self, azurite: Azurite, secret: str) -> None:
        super().__init__(azurite.server)
        self.secret = secret
        # Client IDs of the node's managed identities.
        self.identities = {CLIENT}
        self._signature = generate_account_sas(
            ACCOUNT,
            account_key=azurite.key,
            resource_types=ResourceTypes(container=True, object=True),
            permission=AccountSasPermissions(read=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

    @property
    def sign_ins(self) -> int:
        return sum(asked.method == "POST" for asked in self.asked)

    @property
    def identity_asks(self) -> int:
        return sum(asked.path == IDENTITY_PATH for asked in self.asked)

    def answer(self, asked: Asked) -> Answer | None:
        if asked.path == IDENTITY_PATH:
            return self._identify(asked)
        if asked.path == f"/{TENANT}/oauth2/v2.0/token":
            return self._sign_in(asked.form)
        if asked.path.endswith("/oauth2/v2.0/token"):
            return Answer.json(400, {"error": "invalid_request", "error_description": "no tenant"})
        if self.bearer(asked) is None:
            return Answer(401, headers={"x-ms-error-code": "InvalidAuthenticationInfo"})
        return None

    def _sign_in(self, form: Mapping[str, str]) -> Answer:
        assert form["grant_type"] == "client_credentials"
        assert form["scope"] == "https://storage.azure.com/.default"
        proofs = {form.get("client_secret"), form.get("client_assertion")}
        if form["client_id"] != CLIENT or self.secret not in proofs:
            content = {"error": "invalid_client", "error_description": f"wrong: {proofs}"}
            return Answer.json(401, content)
        return self.issue(CLIENT)

    def _identify(self, asked: Asked) -> Answer:
        """As the metadata service of Azure's virtual machines, at 169.254.169.254."""
        query = dict(parse_qsl(urlsplit(asked.target).query))
        if asked.headers.get("Metadata") != "true":
            problem = "Required metadata header not specified"
        elif query.pop("api-version", "") != "2018-02-01":
            problem = "Bad Request"
        elif query.pop("resource", "") != "https://storage.azure.com/":
            problem = "Invalid resource"
        elif not self.identities or query.get("client_id", CLIENT) not in self.identities:
            problem = "Identity not found"
        elif not query and len(self.identities) > 1:
            problem = "Multiple user assigned identities exist"
        else:
            issued = json.loads(self.issue(CLIENT).body)
            # Its numbers are texts.
            return Answer.json(200, issued | {"expires_in": str(self.lifetime), "client_id": "c"})
        return Answer.json(400, {"error": "invalid_request", "error_description": problem})

    def target(self, asked: Asked) -> str:
        return f"{asked.target}{'&' if '?' in asked.target else '?'}{self._signature}"


class Container(Store):
    """A private container, read with the account's key."""

    scheme = "https"
    container = CONTAINER

    def __init__(self, azurite: Azurite) -> None:
        self.azurite = azurite
        self.source = AzureSource(Transports(max_connections=4))
        self.nobody = self.settings()
        self.good = self.settings(AZURE_STORAGE_ACCESS_KEY=azurite.key)
        other = base64.b64encode(secrets.token_bytes(64)).decode()
        self.bad = (
            self.settings(AZURE_STORAGE_ACCESS_KEY=other),
            self.settings(AZURE_STORAGE_ACCESS_KEY="no base64"),
            self.settings(AZURE_CLIENT_ID="alone"),
            self.settings(AZURE_STORAGE_SAS_TOKEN="?sv=2021-12-02&sr=c&sp=rl&sig=d3Jvbmc%3D"),
        )
        self.secrets = (azurite.key, other, "d3Jvbmc", "no base64")

    def settings(self, **settings: str) -> Credentials:
        return Credentials.of({"AZURE_STORAGE_BLOB_ENDPOINT": self.azurite.endpoint, **settings})

    def put(self, files: Mapping[str, bytes]) -> str:
        prefix = f"{secrets.token_hex(4)}/m x"
        with self.azurite.client() as client:
            # Consoles make such markers.
            client.get_blob_client(self.container, f"{prefix}/").upload_blob(b"")
            for path, content in files.items():
                client.get_blob_client(self.container, f"{prefix}/{path}").upload_blob(content)
        return f"{self.scheme}://{HOST}/{self.container}/{prefix.replace(' ', '%20')}"

    def change(self, uri: str, path: str, content: bytes) -> None:
        prefix = "/".join(uri.split("/")[4:]).replace("%20", " ")
        self.azurite.upload(f"{prefix}/{path}", content, container=self.container)


class PublicContainer(Container):
    """A container that anybody may list and read."""

    scheme = "azure"
    container = PUBLIC
    public = True

    def __init__(self, azurite: Azurite) -> None:
        super().__init__(azurite)
        self.good = self.nobody
        self.bad = ()


class SignedInContainer(Container):
    """A private container, read by an application."""

    def __init__(self, azurite: Azurite) -> None:
        super().__init__(azurite)
        secret, wrong = secrets.token_hex(8), secrets.token_hex(8)
        self.gate = SignInGate(azurite, secret)
        self.nobody = self.settings()
        self.good = self.application()
        self.bad = (
            self.application(AZ_CLIENT_SECRET=wrong),
            self.application(AZ_CLIENT_ID="stranger"),
            self.application(AZ_TENANT_ID="../elsewhere"),
        )
        self.secrets = (secret, wrong)

    def settings(self, **settings: str) -> Credentials:
        if not hasattr(self, "gate"):
            return super().settings(**settings)
        endpoint = f"{self.gate.url}/{ACCOUNT}"
        return Credentials.of({"AZURE_STORAGE_BLOB_ENDPOINT": endpoint, **settings})

    def application(self, **settings: str) -> Credentials:
        """Credentials of an application, by the names that KServe's secrets have."""
        known = {
            "AZ_CLIENT_ID": CLIENT,
            "AZ_CLIENT_SECRET": self.gate.secret,
            "AZ_TENANT_ID": TENANT,
            "AZURE_AUTHORITY_HOST": self.gate.url,
        }
        return self.settings(**(known | settings))


@contextmanager
def azure_storage(folder: Path) -> Iterator[Azurite]:
    """A running server, with a private and a public container."""
    (port,) = free_ports(1)
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    argv = (
        *(*build.ensure_azurite(), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--silent", "--disableTelemetry", "--inMemoryPersistence"),
        # Clients are newer than the server.
        "--skipApiVersionCheck",
    )
    env = os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}
    with running(argv, port, folder / "azurite.log", env):
        azurite = Azurite(f"http://127.0.0.1:{port}", key)
        with azurite.client() as client:
            client.create_container(CONTAINER)
            client.create_container(PUBLIC, public_access="container")
        yield azurite
