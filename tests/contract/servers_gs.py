"""fake-gcs-server, which lets anybody in, and a gate of ours before it that asks for tokens."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from agent.sources.gs import GoogleStorageSource
from agent.sources.transport import Transports
from agent.structs.credentials import GCS_KEY_FILE, Credentials
from deploy.local import build
from deploy.local.ports import free_ports
from tests.contract.gate import Answer, Asked, Gate, running
from tests.contract.suite import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BUCKET = "models"
GOOD = "reader@project.iam.example"
# It gets tokens, and may read nothing.
STRANGER = "stranger@project.iam.example"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# Of what a key signs, wherever its token server is.
AUDIENCE = "https://oauth2.googleapis.com/token"
METADATA = "/computeMetadata/v1"


@cache
def key_pair(name: str) -> tuple[str, str]:
    """A private and a public key, in PEM, for each name."""
    assert name
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


def key_file(token_uri: str, *, account: str = GOOD, key: str = "right") -> str:
    """The content of a service account's key file."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "1",
            "private_key": key_pair(key)[0],
            "client_email": account,
            "client_id": "1",
            "token_uri": token_uri,
        }
    )


class TokenGate(Gate):
    """Google's sign-in, its metadata server, and its storage behind them."""

    listing_allowed = True
    throttled = False

    @property
    def token_uri(self) -> str:
        return f"{self.url}/token"

    @property
    def sign_ins(self) -> int:
        return sum(asked.path == "/token" for asked in self.asked)

    def answer(self, asked: Asked) -> Answer | None:
        if asked.path == "/token":
            return self._sign_in(asked)
        if asked.path.startswith(METADATA):
            return self._metadata(asked)
        who = self.bearer(asked)
        if who is None:
            return refusal(401, "required" if "Authorization" not in asked.headers else "authError")
        if self.throttled:
            return refusal(403, "rateLimitExceeded")
        is_listing = asked.path.endswith("/o")
        if who != GOOD or (is_listing and not self.listing_allowed):
            return refusal(403, "forbidden")
        return None

    def _sign_in(self, asked: Asked) -> Answer:
        assert asked.form["grant_type"] == GRANT
        decode: Any = jwt.decode
        try:
            claims = decode(asked.form["assertion"], key_pair("right")[1], audience=AUDIENCE)
        except ValueError:
            return Answer.json(400, {"error": "invalid_grant", "error_description": "Bad JWT"})
        assert claims["scope"].endswith("/devstorage.read_only")
        return self.issue(claims["iss"])

    def _metadata(self, asked: Asked) -> Answer:
        assert asked.headers["Metadata-Flavor"] == "Google"
        if asked.path.endswith("/token"):
            return self.issue(GOOD)
        assert "service-accounts" in asked.path
        account = {"email": GOOD, "scopes": [], "aliases": ["default"]}
        return Answer.json(200, account, **{"Metadata-Flavor": "Google"})


def refusal(status: int, reason: str) -> Answer:
    """What the JSON API answers."""
    error = {"code": status, "message": "no", "errors": [{"reason": reason}]}
    return Answer.json(status, {"error": error})


class Bucket(Store):
    """A bucket, read straight from the server by anybody."""

    public = True

    def __init__(self, server: str) -> None:
        self.server = server
        self.source = GoogleStorageSource(Transports(max_connections=4))
        self.nobody = self.good = Credentials.of({"STORAGE_EMULATOR_HOST": server})

    def put(self, files: Mapping[str, bytes]) -> str:
        prefix = f"{secrets.token_hex(4)}/m"
        # Consoles make such markers.
        self.upload(f"{prefix}/", b"")
        for path, content in files.items():
            self.upload(f"{prefix}/{path}", content)
        return f"gs://{BUCKET}/{prefix}"

    def change(self, uri: str, path: str, content: bytes) -> None:
        self.upload(f"{uri.removeprefix(f'gs://{BUCKET}/')}/{path}", content)

    def upload(self, name: str, content: bytes, **parameters: str) -> None:
        extra = "".join(f"&{name}={value}" for name, value in parameters.items())
        requests.post(
            f"{self.server}/upload/storage/v1/b/{BUCKET}/o"
            f"?uploadType=media&name={quote(name, safe='')}{extra}",
            data=content,
            timeout=20,
        ).raise_for_status()


class GatedBucket(Bucket):
    """A bucket that only one service account may read."""

    public = False

    def __init__(self, server: str, gate: TokenGate) -> None:
        super().__init__(server)
        self.gate = gate
        self.good = self.with_key(key_file(gate.token_uri))
        self.nobody = Credentials.of({"STORAGE_EMULATOR_HOST": gate.url})
        self.bad = (
            self.with_key(key_file(gate.token_uri, key="wrong")),
            self.with_key(key_file(gate.token_uri, account=STRANGER)),
            self.with_key("{}"),
            self.with_key("no JSON"),
            self.with_key('{"type": "external_account"}'),
        )
        self.secrets = (*key_pair("right")[0].splitlines()[1:3], key_pair("wrong")[0])

    def with_key(self, content: str) -> Credentials:
        """Credentials with a key file."""
        return Credentials.of({"STORAGE_EMULATOR_HOST": self.gate.url, GCS_KEY_FILE: content})


@contextmanager
def google_storage(folder: Path) -> Iterator[str]:
    """The URL of a running server, with the bucket."""
    (port,) = free_ports(1)
    argv = (
        *(str(build.ensure_fake_gcs()), "-scheme", "http", "-backend", "memory"),
        *("-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"),
        *("-log-level", "error"),
    )
    with running(argv, port, folder / "fake-gcs.log"):
        server = f"http://127.0.0.1:{port}"
        made = requests.post(f"{server}/storage/v1/b", json={"name": BUCKET}, timeout=20)
        made.raise_for_status()
        yield server
