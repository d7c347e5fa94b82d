"""A cluster of the standalone overlay."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from deploy.kube.errors import ApiError
from deploy.kube.kinds import CACHES
from deploy.local.cluster import Cluster
from deploy.local.origin import S3Origin
from tests.e2e import audit
from tests.e2e.origin import HttpOrigin
from tests.e2e.world import World

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("standin")


def test_the_standalone_overlay_refuses_a_second_cache_with_one_uri(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "local")
    http = HttpOrigin()
    cluster.up(1, metacontroller="standin", overlay="standalone", owner_pid=os.getpid())
    try:
        world = World(cluster, http, S3Origin())
        # What the start has asked the policy with is gone.
        assert not cluster.api.list(CACHES)
        uri = http.put("model.bin", b"weights")
        world.node("node-1", "alone")
        world.group("alone")
        world.cache("alone", uri, "alone")
        # The short form is KServe's webhooks' trouble alone. By then the policy knows it too: of
        # two that are made at once, both may come through.
        world.wait_ready("alone", 1)
        with pytest.raises(ApiError, match="LocalModelCache alone has the same sourceModelUri"):
            world.cache("second", uri, "alone")
        audit.check(cluster)
    finally:
        cluster.down()
        http.close()
