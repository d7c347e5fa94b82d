"""Follows the kubelet's thresholds: the agent reads them from the kubelet again and again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.cluster.kubelet_config import KubeletConfigError
from agent.structs.kubelet import thresholds_of_config
from agent.structs.log import log

if TYPE_CHECKING:
    from agent.cluster.kubelet_config import KubeletConfig
    from agent.disk.kubelet_disk import KubeletDisk

# A kubelet reads its configuration when it starts, so changes are rare.
POLL_SECONDS = 600.0
RETRY_SECONDS = 60.0


def follow_kubelet(config: KubeletConfig, disk: KubeletDisk) -> None:
    """Read the thresholds now, and then from time to time in a thread.

    While they cannot be read, those stay that were known before.
    """
    follower = _Follower(config, disk)
    wait = follower.read()
    threading.Thread(target=follower.run, args=(wait,), name="kubelet", daemon=True).start()


class _Follower:
    def __init__(self, config: KubeletConfig, disk: KubeletDisk) -> None:
        self._config = config
        self._disk = disk
        self._problem = ""

    def run(self, wait: float) -> None:
        """Read after this many seconds, and so on."""
        waiting = threading.Event()
        while True:
            waiting.wait(wait)
            wait = self.read()

    def read(self) -> float:
        """Read once. Returns the seconds until the next time."""
        try:
            found = thresholds_of_config(self._config.read())
        except (KubeletConfigError, ValueError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                log.warning(
                    "Could not read the kubelet's thresholds",
                    reason=self._problem,
                    used=str(self._disk.thresholds),
                )
            return RETRY_SECONDS
        self._problem = ""
        if found != self._disk.thresholds:
            log.info("Read the kubelet's thresholds", thresholds=str(found))
            self._disk.thresholds = found
        return POLL_SECONDS
