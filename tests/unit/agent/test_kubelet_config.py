"""The kubelet's thresholds, read from a server that answers as a kubelet does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client

from agent.cluster.kubelet_config import KubeletConfig, KubeletConfigError
from agent.commands import kubelet_thresholds
from agent.commands.kubelet_thresholds import follow_kubelet
from agent.disk.kubelet_disk import BOTH, KubeletDisk
from agent.structs.kubelet import DEFAULT_THRESHOLDS, Origin, thresholds_of_config
from tests.unit.agent.certificates import make_authority
from tests.unit.agent.servers import serving
from tests.unit.agent.test_pull import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.agent.certificates import Authority
    from tests.unit.agent.servers import Handler, Server

# As of a kubelet of Kubernetes 1.36, without the fields that do not matter here.
CONFIG: dict[str, Any] = {
    "enableServer": True,
    "imageMinimumGCAge": "2m0s",
    "imageMaximumGCAge": "0s",
    "imageGCHighThresholdPercent": 80,
    "imageGCLowThresholdPercent": 70,
    "evictionHard": {
        "imagefs.available": "15%",
        "imagefs.inodesFree": "5%",
        "memory.available": "100Mi",
        "nodefs.available": "10%",
        "nodefs.inodesFree": "5%",
    },
    "evictionSoft": {"nodefs.available": "30Gi"},
    "evictionSoftGracePeriod": {"nodefs.available": "1m"},
    "evictionPressureTransitionPeriod": "5m0s",
}
READ = (
    "imageGCHighThresholdPercent=80,nodefs.available=10%,imagefs.available=15%,"
    "nodefs.available=30Gi"
)


class Kubelet:
    """What the server answers."""

    def __init__(self) -> None:
        self.status = 200
        self.body = json.dumps({"kubeletconfig": CONFIG}).encode()

    def __call__(self, handler: Handler, _path: str) -> None:
        handler.reply(self.status, self.body, {"Content-Type": "application/json"})


@pytest.fixture
def kubelet() -> Kubelet:
    return Kubelet()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "ca")


@pytest.fixture
def server(kubelet: Kubelet, authority: Authority) -> Iterator[Server]:
    with serving(kubelet, tls=authority.context) as found:
        yield found


def config(server: Server, bundle: Path) -> KubeletConfig:
    """As the pod's ServiceAccount reads it."""
    settings = client.Configuration(host="https://api.example:6443")

    def refresh(settings: client.Configuration) -> None:
        # As for a pod: incluster_config.py sets all that it knows.
        settings.host = "https://api.example:6443"
        settings.api_key["BearerToken"] = "Bearer t0ken"

    untyped: Any = settings
    untyped.refresh_api_key_hook = refresh
    refresh(settings)
    settings.ssl_ca_cert = str(bundle)
    # A person's kubeconfig may say so of the API server.
    settings.verify_ssl = False
    settings.retries = False
    return KubeletConfig(f"{server.url}/configz", client.ApiClient(settings))


def test_the_configuration_is_read_with_the_agents_token(
    server: Server, authority: Authority
) -> None:
    found = thresholds_of_config(config(server, authority.bundle).read())
    assert str(found) == READ
    assert found.origin is Origin.READ
    ((method, path, headers),) = server.seen
    assert (method, path) == ("GET", "/configz")
    assert headers["authorization"] == "Bearer t0ken"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"evictionHard": None}, "evictionHard"),
        ({"evictionHard": {"nodefs.available": "much"}}, "nodefs.available: 'much' is not"),
        ({"imageGCHighThresholdPercent": 101}, "not a whole number from 0 to 100"),
        ({"imageGCHighThresholdPercent": "x"}, "imageGCHighThresholdPercent: Input should be"),
    ],
)
def test_a_configuration_that_is_none_is_told(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        thresholds_of_config({**CONFIG, **change})


def test_thresholds_that_the_kubelet_does_not_have_are_off() -> None:
    found = thresholds_of_config({"imageGCHighThresholdPercent": 100, "evictionHard": {}})
    assert found.of(BOTH) == ()


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (401, b"Unauthorized", "401 Unauthorized: the kubelet must accept tokens"),
        (403, b"Forbidden", "403 Forbidden: let the agent's ServiceAccount get nodes/configz"),
        (500, b"", "500 Internal Server Error"),
        (302, b"", "302 Found"),
        (200, b"<html>", "the answer is no configuration of a kubelet"),
        (200, b"{}", "the answer is no configuration of a kubelet"),
        (200, b"[]", "the answer is no configuration of a kubelet"),
    ],
)
def test_another_answer_is_an_error(
    server: Server, authority: Authority, kubelet: Kubelet, status: int, body: bytes, text: str
) -> None:
    kubelet.status, kubelet.body = status, body
    with pytest.raises(KubeletConfigError) as error:
        config(server, authority.bundle).read()
    assert str(error.value).startswith(f"{server.url}/configz: {text}")


def test_a_server_of_another_authority_gets_no_token(server: Server, tmp_path: Path) -> None:
    other = make_authority(tmp_path / "other")
    with pytest.raises(KubeletConfigError, match=r"verify failed.*serverTLSBootstrap") as error:
        config(server, other.bundle).read()
    assert "\n" not in str(error.value)
    assert server.seen == []


def test_what_was_known_stays_while_the_kubelet_does_not_answer(
    server: Server, authority: Authority, kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet_thresholds, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(kubelet_thresholds, "POLL_SECONDS", 0.01)
    disk = KubeletDisk(DEFAULT_THRESHOLDS, BOTH)
    kubelet.status = 403
    follow_kubelet(config(server, authority.bundle), disk)
    assert disk.thresholds == DEFAULT_THRESHOLDS
    kubelet.status = 200
    wait_for(lambda: str(disk.thresholds) == READ, 30)
    kubelet.status = 500
    asked = len(server.seen)
    wait_for(lambda: len(server.seen) > asked + 3, 30)
    assert str(disk.thresholds) == READ
