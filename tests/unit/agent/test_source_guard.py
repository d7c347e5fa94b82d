from __future__ import annotations

import ipaddress

import pytest

from agent.credentials import Credentials
from agent.failures import DownloadError, FailureKind
from agent.sources.guard import LINK_LOCAL, check_address
from agent.sources.http import HttpSource
from agent.sources.s3 import S3Source
from agent.sources.transport import Transports
from tests.unit.agent.servers import Handler, WebFiles, serving

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
    ],
)
def test_addresses_of_metadata_services_are_refused(address: str) -> None:
    with pytest.raises(DownloadError) as refused:
        check_address(address, LINK_LOCAL)
    assert refused.value.kind is FailureKind.DENIED
    assert address in refused.value.message


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "93.184.216.34", "::1", "2606::1"])
def test_other_addresses_are_not(address: str) -> None:
    check_address(address, LINK_LOCAL)


def test_nothing_is_sent_to_a_refused_address() -> None:
    with serving(WebFiles({"/model.bin": b"secret"})) as server:
        source = HttpSource(Transports(max_connections=2, refused=LOOPBACK))
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(DownloadError) as refused:
                source.resolve(f"http://{host}:{server.server_port}/model.bin", None, None)
            assert refused.value.kind is FailureKind.DENIED
        assert server.seen == []


def test_a_redirect_to_a_refused_address_is_refused() -> None:
    elsewhere = (ipaddress.ip_network("127.0.0.2/32"),)
    with serving(WebFiles({"/model.bin": b"secret"}), "127.0.0.2") as inner:

        def redirect(handler: Handler, _path: str) -> None:
            handler.reply(302, headers={"Location": f"{inner.url}/model.bin"})

        with serving(redirect) as outer:
            source = HttpSource(Transports(max_connections=2, refused=elsewhere))
            with pytest.raises(DownloadError) as refused:
                source.resolve(f"{outer.url}/model.bin", None, None)
        assert refused.value.kind is FailureKind.DENIED
        assert inner.seen == []


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"]
)
def test_a_metadata_service_is_refused_whether_it_answers_or_not(host: str) -> None:
    uri = f"http://{host}/latest/meta-data/iam"
    with pytest.raises(DownloadError) as refused:
        HttpSource(Transports(max_connections=2)).resolve(uri, None, None)
    assert refused.value.kind is FailureKind.DENIED
    assert "give another sourceModelUri" in refused.value.message


def test_the_endpoint_of_a_secret_is_refused_too() -> None:
    with serving(WebFiles({})) as server:
        named = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        credentials = Credentials.of(named | {"AWS_ENDPOINT_URL": server.url})
        source = S3Source(Transports(max_connections=2, refused=LOOPBACK))
        with pytest.raises(DownloadError) as refused:
            source.resolve("s3://bucket/model", credentials, None)
        assert refused.value.kind is FailureKind.DENIED
        assert server.seen == []
