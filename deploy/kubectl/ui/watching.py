"""Brings the state of the cluster to the feed: one reader, whatever the number of browsers."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from deploy.kube.errors import ApiError
from deploy.kubectl.snapshot import server_time
from deploy.kubectl.ui.feed import Health

if TYPE_CHECKING:
    from deploy.kube.client import KubeClient
    from deploy.kubectl.follow import Follower
    from deploy.kubectl.ui.feed import Feed

# Changes of this time are one message: a person sees no difference, and a rollout has many.
GATHER_SECONDS = 0.25
# How often the cluster is asked whether it answers: a watch may break without a sign.
PROBE_SECONDS = 5.0


class Watching:
    """Publishes each change of a follower, and whether the cluster answers, until `stop`."""

    def __init__(self, client: KubeClient, follower: Follower, feed: Feed, cluster: str) -> None:
        self._client = client
        self._follower = follower
        self._feed = feed
        self._cluster = cluster
        self._stopped = threading.Event()
        self._reporting = threading.Lock()
        self._silence = ""
        self._fault = ""
        self._seen = time.time()

    def start(self) -> None:
        """Publish in threads."""
        self._feed.publish(self._follower.snapshot())
        self._report()
        for target in (self._changes, self._probes):
            threading.Thread(target=target, name=target.__name__, daemon=True).start()

    def stop(self) -> None:
        """Publish nothing more."""
        self._stopped.set()
        self._follower.close()

    def _changes(self) -> None:
        seen = 0
        while not self._stopped.wait(GATHER_SECONDS):
            count = self._follower.wait(seen, PROBE_SECONDS)
            if count == seen:
                continue
            seen = count
            # This also gathers what comes next after a while without changes.
            self._stopped.wait(GATHER_SECONDS / 5)
            try:
                self._feed.publish(self._follower.snapshot())
            except Exception as error:  # noqa: BLE001 - a page that stands still must say so
                # With the next change, the page shows this change too.
                self._fault = f"The newest changes cannot be shown: {error!r}; report this error"
            else:
                self._fault = ""
            self._report()

    def _probes(self) -> None:
        while not self._stopped.wait(PROBE_SECONDS):
            try:
                server_time(self._client)
            except ApiError as error:
                self._silence = str(error)
            except Exception as error:  # noqa: BLE001 - as above
                self._silence = f"asking the API server for its time: {error!r}"
            else:
                self._silence = ""
                self._seen = time.time()
            self._report()

    def _report(self) -> None:
        with self._reporting:
            snapshot = self._feed.snapshot
            broken = self._silence or self._follower.trouble or self._fault
            gaps = [
                *(f"You may not list {kind}s: {text}" for kind, text in snapshot.forbidden.items()),
                *(
                    f"The cluster has no {kind}s: install localmodel's CRDs"
                    for kind in snapshot.absent
                ),
            ]
            state = "broken" if broken else "partly" if gaps else "live"
            errors = ([broken] if broken else []) + gaps
            self._feed.report(Health(self._cluster, state, errors, self._seen, time.time()))
