"""Who may list a model need not be allowed to read it: real servers that tell the two apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent.sources.hdfs import HdfsSource
from agent.sources.hf import HuggingFaceSource
from agent.sources.readable import check_readable
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from tests.contract.servers_azure import Container, azure_storage
from tests.contract.servers_gs import GatedBucket, TokenGate, google_storage, refusal
from tests.contract.servers_hf import LARGE, Hub, Repo, serving_hub
from tests.contract.servers_s3 import BUCKET, Gateway, s3_storage
from tests.contract.servers_webhdfs import FileSystem, serving_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.structs.remote import RemoteModel
    from tests.contract.gate import Answer, Asked
    from tests.unit.agent.servers import Handler

FILES = {"config.json": b"{}", "empty": b"", "deep/weights": b"w" * (2 * LARGE)}
LISTS_ALL = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:ListBucket"],
            "Resource": f"arn:aws:s3:::{BUCKET}",
        }
    ],
}


def _paths(model: RemoteModel) -> set[str]:
    return {file.path for file in model.files}


def _check_refused(model: RemoteModel) -> None:
    """It is listed, and no byte of it is given."""
    assert _paths(model) == FILES.keys()
    with pytest.raises(DownloadError) as caught:
        check_readable(model)
    assert caught.value.kind is FailureKind.DENIED


@pytest.mark.parametrize("token", ["", "other"])
def test_a_gated_repository_is_listed_for_all(token: str) -> None:
    repo = Repo(readers={"good"}, gated=True)
    repo.commit(FILES)
    with serving_hub(Hub({"org/m": repo}, tokens={"good", "other"})) as running:
        source = HuggingFaceSource(Transports(max_connections=2))

        def model(token: str) -> RemoteModel:
            settings = {"HF_ENDPOINT": running.url, "HF_TOKEN": token}
            return source.resolve("hf://org/m", Credentials.of(settings), None)

        check_readable(model("good"))
        _check_refused(model(token))


def test_a_bucket_that_all_may_list(tmp_path: Path) -> None:
    with s3_storage(tmp_path) as url:
        gateway = Gateway(url)
        uri = gateway.put(FILES)
        gateway.client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(LISTS_ALL))
        check_readable(gateway.resolve(uri))
        _check_refused(gateway.source.resolve(uri, gateway.nobody, None))


class ListingOnly(TokenGate):
    """Google's storage, where nobody has storage.objects.get."""

    def answer(self, asked: Asked) -> Answer | None:
        if "alt=media" in asked.target and not self.listing_allowed:
            return refusal(403, "forbidden")
        return super().answer(asked)


def test_a_bucket_of_google_without_the_right_to_get(tmp_path: Path) -> None:
    with google_storage(tmp_path) as server:
        gate = ListingOnly(server)
        try:
            bucket = GatedBucket(server, gate)
            uri = bucket.put(FILES)
            model = bucket.resolve(uri)
            check_readable(model)
            gate.listing_allowed = False
            _check_refused(model)
        finally:
            gate.close()


def test_a_signature_that_may_list_and_not_read(tmp_path: Path) -> None:
    with azure_storage(tmp_path) as azurite:
        container = Container(azurite)
        uri = container.put(FILES)
        check_readable(container.resolve(uri))
        listing = container.settings(AZURE_STORAGE_SAS_TOKEN=azurite.signature(reading=False))
        _check_refused(container.source.resolve(uri, listing, None))


class Unreadable(FileSystem):
    """Files that only `ada` may open, in folders that all may list."""

    def _answer(self, handler: Handler, path: str, query: dict[str, str]) -> None:
        if query["op"] == "OPEN" and query.get("user.name") != "ada":
            body = json.dumps({"RemoteException": {"exception": "AccessControlException"}})
            return handler.reply(403, body.encode())
        return super()._answer(handler, path, query)


def test_a_file_of_hadoop_without_the_right_to_open() -> None:
    system = Unreadable(users={"ada", "eve"})
    with serving_files(system) as running:
        system.put("/m", FILES)
        source = HdfsSource(Transports(max_connections=2))

        def model(user: str) -> RemoteModel:
            named: Mapping[str, str] = {"HADOOP_USER_NAME": user}
            return source.resolve(f"{running.uri}/m", Credentials.of(named), None)

        check_readable(model("ada"))
        _check_refused(model("eve"))
