"""The agent's own credentials are for those who have them, and fill no gap of a tenant's."""

from __future__ import annotations

from contextlib import suppress

import pytest

from agent.commands.assemble import own_credentials
from agent.jobs.rechecks import digest_of
from agent.sources import all_sources
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent.helpers import set_aws
from tests.unit.agent.servers import Handler, serving

SECRETS = {
    "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=s3cret",
    "HDFS_DELEGATION_TOKEN": "s3cret",
    "HF_TOKEN": "hf_s3cret",
}


@pytest.mark.parametrize(
    ("uri", "server_is", "proof"),
    [
        ("https://acc.blob.core.windows.net/c/m", "AZURE_STORAGE_BLOB_ENDPOINT", "sig=s3cret"),
        ("hf://org/model", "HF_ENDPOINT", "hf_s3cret"),
        ("hdfs://models/m", "HDFS_NAMENODE", "delegation=s3cret"),
        ("s3://bucket/model", "AWS_ENDPOINT_URL", "Credential=key/"),
    ],
)
def test_a_source_sends_the_agents_own_credentials_and_never_for_a_tenant(
    monkeypatch: pytest.MonkeyPatch, uri: str, server_is: str, proof: str
) -> None:
    set_aws(monkeypatch, "AWS_CA_BUNDLE")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    seen: list[str] = []

    def answer(handler: Handler, _: str) -> None:
        seen.append(f"{handler.path} {handler.headers}")
        handler.reply(404)

    with serving(answer) as server:
        monkeypatch.setenv(server_is, server.url)
        tenants = Credentials.of({server_is: server.url})
        for credentials, is_sent in ((own_credentials(), True), (tenants, False)):
            seen.clear()
            with pytest.raises(DownloadError):
                all_sources().of(uri, "").resolve(uri, credentials, None)
            assert seen
            assert any(proof in request for request in seen) is is_sent


def test_a_tenant_without_a_hub_is_asked_at_the_agents_and_without_its_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
    with serving(lambda handler, _: handler.reply(404)) as server:
        hub = all_sources(hub=server.url).of("hf://org/model", "team")
        with suppress(DownloadError):
            hub.resolve("hf://org/model", Credentials.of({}), None)
        assert server.seen
        assert not any("Authorization" in headers for _, _, headers in server.seen)


def test_credentials_that_hold_nothing_are_not_the_agents_own() -> None:
    assert Credentials.of({}) != Credentials.of({}, own=True)
    assert digest_of(Credentials.of({})) != digest_of(Credentials.of({}, own=True))


def test_the_agents_environment_is_no_change_of_credentials() -> None:
    before, after = (Credentials.of({"HOSTNAME": name}, own=True) for name in ("a", "b"))
    assert digest_of(before) == digest_of(after)


def test_the_agents_hadoop_configuration_is_not_a_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    hadoop = all_sources().of("hdfs://cluster/m", "")
    for credentials, part in (
        (own_credentials(), "needs the program `hdfs`"),
        (Credentials.of({"HADOOP_USER_NAME": "x"}), "takes no credentials of a cache"),
    ):
        with pytest.raises(DownloadError, match=part) as refused:
            hadoop.resolve("hdfs://cluster/m", credentials, None)
        assert refused.value.kind is FailureKind.UNSUPPORTED
