"""What caches of a namespace ask with that may not use the agent's own credentials."""

from __future__ import annotations

import pytest

from agent.commands.assemble import own_credentials
from agent.credentials.public_settings import anonymous
from agent.sources.hf import HuggingFaceSource
from agent.sources.s3 import S3Source
from agent.sources.transport import Transports
from agent.structs.failures import DownloadError
from tests.unit.agent.helpers import set_aws
from tests.unit.agent.servers import Buckets, Handler, serving

SIGNATURES = ("Authorization", "X-Amz-Signature", "s3cret")


def test_a_public_bucket_of_the_agents_store_is_read_without_a_signature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_aws(monkeypatch, "AWS_CA_BUNDLE")
    asked: list[str] = []
    buckets = Buckets({"bucket": {"model/w": b"weights"}})

    def answer(handler: Handler, path: str) -> None:
        asked.append(f"{handler.path} {handler.headers}")
        buckets(handler, path)

    with serving(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        source = S3Source(Transports(max_connections=2))
        model = source.resolve("s3://bucket/model", anonymous(own_credentials()), None)
        (file,) = model.files
        assert model.read(file, 0, file.size).read(100) == b"weights"
    assert len(asked) == 2
    assert not any(word in request for word in SIGNATURES for request in asked)


def test_a_hub_is_asked_without_the_agents_token(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def answer(handler: Handler, _: str) -> None:
        seen.append(str(handler.headers))
        handler.reply(404)

    with serving(answer) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
        source = HuggingFaceSource(Transports(max_connections=2))
        with pytest.raises(DownloadError, match="org/model"):
            source.resolve("hf://org/model", anonymous(own_credentials()), None)
    assert seen
    assert not any(word in request for word in SIGNATURES for request in seen)
