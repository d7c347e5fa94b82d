"""Local clusters, shared by all end-to-end tests.

For each available Metacontroller, one cluster has the standalone overlay with agents, and one the
kserve overlay without agents. Two more have one Metacontroller only, which makes no difference to
their tests: the kserve overlay with agents, and the standalone overlay with the policies of
deploy/pods without agents. Each module that runs pods has a cluster with real nodes.

After its tests, a cluster fails if RBAC or a policy has refused a request of localmodel's users.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from deploy.local.cluster import Cluster
from deploy.local.origin import S3Origin
from tests.contract.servers_hf import Hub, serving_hub
from tests.e2e import audit
from tests.e2e.clouds import Clouds
from tests.e2e.kserve import CLOUD_HOSTS, HUB_HOST, KServeNodesWorld, KServeWorld
from tests.e2e.origin import HttpOrigin
from tests.e2e.real import real_world, skip_unless_possible
from tests.e2e.world import GRACE_SECONDS, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contract.servers_hf import RunningHub


# Hides the AWS settings of the machine that runs the tests from the agents.
NO_KEYS = {
    "AWS_ACCESS_KEY_ID": "",
    "AWS_SECRET_ACCESS_KEY": "",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def _metacontrollers() -> list[str]:
    real = os.environ.get("METACONTROLLER") or shutil.which("metacontroller")
    return ["standin", "real"] if real else ["standin"]


METACONTROLLERS = _metacontrollers()


@pytest.fixture(scope="session", params=METACONTROLLERS)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp(f"cluster-{request.param}")
    cluster = Cluster(folder / "local")
    s3 = S3Origin()
    http = HttpOrigin()
    cluster.up(
        3,
        metacontroller=request.param,
        # As in real clusters: the admission of a default StorageClass changes claims.
        default_storage_class=True,
        grace_seconds=GRACE_SECONDS,
        progress_seconds=0.5,
        agent_env=s3.agent_env(),
        owner_pid=os.getpid(),
    )
    try:
        s3.start(cluster)
        yield World(cluster, http, s3)
        audit.check(cluster)
    finally:
        cluster.down()
        http.close()


@pytest.fixture(scope="session", params=METACONTROLLERS)
def kserve(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KServeWorld]:
    folder: Path = tmp_path_factory.mktemp(f"kserve-{request.param}")
    cluster = Cluster(folder / "local")
    http = HttpOrigin()
    cluster.up(
        3,
        metacontroller=request.param,
        default_storage_class=True,
        overlay="kserve",
        run_agents=False,
        owner_pid=os.getpid(),
    )
    try:
        yield KServeWorld(cluster, http, S3Origin())
        audit.check(cluster)
    finally:
        cluster.down()
        http.close()


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A cluster with the policies of deploy/pods, without agents."""
    cluster = Cluster(tmp_path_factory.mktemp("policies") / "local")
    http = HttpOrigin()
    cluster.up(
        1, metacontroller="standin", pod_policies=True, run_agents=False, owner_pid=os.getpid()
    )
    try:
        yield World(cluster, http, S3Origin())
        audit.check(cluster)
    finally:
        cluster.down()
        http.close()


@pytest.fixture(scope="session")
def hub() -> Iterator[RunningHub]:
    with serving_hub(Hub()) as running:
        yield running


@pytest.fixture(scope="session", params=_metacontrollers()[-1:])
def kserve_nodes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, hub: RunningHub
) -> Iterator[KServeNodesWorld]:
    folder: Path = tmp_path_factory.mktemp("kserve-nodes")
    cluster = Cluster(folder / "local")
    s3 = S3Origin()
    http = HttpOrigin(ranges=True)
    clouds = Clouds(folder / "clouds", *CLOUD_HOSTS)
    clouds.lead(HUB_HOST, hub.url)
    cluster.up(
        3,
        metacontroller=request.param,
        default_storage_class=True,
        grace_seconds=GRACE_SECONDS,
        progress_seconds=0.5,
        overlay="kserve",
        agent_env=s3.agent_settings() | NO_KEYS | clouds.agent_env(),
        owner_pid=os.getpid(),
    )
    try:
        s3.start(cluster)
        yield KServeNodesWorld(cluster, http, s3, clouds, hub.hub)
        audit.check(cluster)
    finally:
        cluster.down()
        clouds.close()
        http.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("real") / "local"
    skip_unless_possible(folder)
    with real_world(folder) as world:
        yield world
