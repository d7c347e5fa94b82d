"""An S3 server with a bucket of models, as a process of a local cluster."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deploy.local import build
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.process import Process
from deploy.local.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.local.cluster import Cluster

BUCKET = "models"
REGION = "us-east-1"
START_SECONDS = 15.0


@dataclass(frozen=True)
class S3Origin:
    """The origin of the models. Its settings for the agents are known before it runs."""

    name: str = "s3-origin"
    port: int = field(default_factory=lambda: free_ports(1)[0])
    access_key: str = field(default_factory=lambda: secrets.token_hex(8))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def endpoint(self) -> str:
        """URL of the server."""
        return f"http://{LOOPBACK}:{self.port}"

    def agent_env(self) -> dict[str, str]:
        """The environment with which agents can read from the server."""
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return keys | self.agent_settings()

    def agent_settings(self) -> dict[str, str]:
        """The environment of `agent_env` without the keys."""
        return {"AWS_REGION": REGION, "AWS_ENDPOINT_URL": self.endpoint}

    def start(self, cluster: Cluster) -> None:
        """Start the server in a cluster, with an empty bucket, and wait until it answers."""
        folder = cluster.root / self.name
        for part in ("data", "metadata"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        argv = (
            *(str(build.ensure_versitygw()), "--quiet", f"--port={LOOPBACK}:{self.port}"),
            *(f"--region={REGION}", "posix", f"--sidecar={folder / 'metadata'}"),
            str(folder / "data"),
        )
        credentials = {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
        cluster.run(self.name, Process(argv, cwd=str(folder), env=os.environ | credentials))
        self._wait()

    def resume(self, cluster: Cluster) -> None:
        """Start the server again after `cluster.stop`, and wait until it answers."""
        cluster.start(self.name)
        self._wait()

    def upload(self, folder: Path, prefix: str, checksum: str | None = None) -> str:
        """Upload a folder's files under a prefix. Returns the model's URI.

        checksum: the algorithm of the checksums that the server keeps, such as SHA256.
        """
        client = self._client()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                more = {"ChecksumAlgorithm": checksum} if checksum else {}
                client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes(), **more)
        return f"s3://{BUCKET}/{prefix}"

    def _wait(self) -> None:
        wait_until(self._make_bucket, f"the S3 server at {self.endpoint}", seconds=START_SECONDS)

    def _make_bucket(self) -> bool:
        try:
            self._client().create_bucket(Bucket=BUCKET)
        except ClientError as error:
            return bool(error.response["Error"]["Code"] == "BucketAlreadyOwnedByYou")
        except BotoCoreError:
            return False
        return True

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(retries={"max_attempts": 1}, proxies={}),
        )
