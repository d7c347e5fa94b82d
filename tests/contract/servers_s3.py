"""versitygw, which checks keys and signatures."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from agent.sources.s3 import S3Source
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from deploy.local import build
from deploy.local.ports import free_ports
from tests.contract.gate import running
from tests.contract.suite import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.unit.agent.certificates import Authority

BUCKET = "models"
REGION = "eu-test-1"
ACCESS, SECRET = "reader", secrets.token_hex(16)


class Gateway(Store):
    """A bucket of versitygw, with credentials that a cache names."""

    # Of these the store tells who they are not: what it says of anonymous ones is a refusal too.
    public = False

    def __init__(self, endpoint: str, trusted: Path | None = None) -> None:
        self.endpoint = endpoint
        self.source = S3Source(Transports(max_connections=4))
        self.good = self.named()
        self.nobody = self.named(awsAnonymousCredential="true")
        self.bad = (
            self.named(AWS_SECRET_ACCESS_KEY="wrong-s3cret"),
            self.named(AWS_ACCESS_KEY_ID="nobody"),
            self.named(AWS_SESSION_TOKEN="no-token"),
            Credentials.of({"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": REGION}),
        )
        self.secrets = (SECRET, "wrong-s3cret", "X-Amz")
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            region_name=REGION,
            verify=None if trusted is None else str(trusted),
            config=Config(proxies={}),
        )
        self._made = 0

    def named(self, **settings: str) -> Credentials:
        return Credentials.of(
            {
                "AWS_ACCESS_KEY_ID": ACCESS,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_ENDPOINT_URL": self.endpoint,
                "AWS_DEFAULT_REGION": REGION,
                **settings,
            }
        )

    def put(self, files: Mapping[str, bytes]) -> str:
        self._made += 1
        prefix = f"{type(self).__name__}-{self._made}/m"
        for path, content in files.items():
            self.upload(f"{prefix}/{path}", content)
        return f"s3://{BUCKET}/{prefix}"

    def change(self, uri: str, path: str, content: bytes) -> None:
        self.upload(f"{uri.removeprefix(f's3://{BUCKET}/')}/{path}", content)

    def upload(self, key: str, content: bytes, algorithm: str = "CRC64NVME", **more: str) -> None:
        self.client.put_object(
            Bucket=BUCKET, Key=key, Body=content, ChecksumAlgorithm=algorithm, **more
        )


@contextmanager
def s3_storage(folder: Path, authority: Authority | None = None) -> Iterator[str]:
    """The URL of a running server, with the bucket; over TLS with an authority's certificate."""
    for part in ("data", "metadata"):
        (folder / part).mkdir()
    (port,) = free_ports(1)
    tls = (f"--cert={authority.chain}", f"--key={authority.chain}") if authority else ()
    argv = (
        *(str(build.ensure_versitygw()), "--quiet", f"--port=127.0.0.1:{port}", *tls),
        *(f"--region={REGION}", "posix", f"--sidecar={folder / 'metadata'}"),
        str(folder / "data"),
    )
    root = {"ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
    with running(argv, port, folder / "versitygw.log", os.environ | root):
        url = f"{'https' if authority else 'http'}://127.0.0.1:{port}"
        client = Gateway(url, authority.bundle if authority else None).client
        client.create_bucket(Bucket=BUCKET)
        yield url
