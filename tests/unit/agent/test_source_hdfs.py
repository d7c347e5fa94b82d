from __future__ import annotations

import pytest

from agent.sources.hdfs import HdfsSource
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind


def test_the_password_of_a_namenode_is_in_no_message() -> None:
    source = HdfsSource(Transports(max_connections=2))
    # Port 1 refuses connections.
    settings = Credentials.of({"HDFS_NAMENODE": "http://joe:s3cret@127.0.0.1:1/gateway/default"})
    with pytest.raises(DownloadError) as caught:
        source.resolve("hdfs://models/a", settings, None)
    assert caught.value.kind is FailureKind.UNREACHABLE
    assert "webhdfs://127.0.0.1:1/models/a" in caught.value.message
    assert "s3cret" not in caught.value.message
