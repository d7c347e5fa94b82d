"""Answers why a cell, a model, a node or a group is as it is, for the panel of the page."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from deploy.kube.errors import ApiError
from deploy.kubectl.cells import cells_of_cache, groups_of
from deploy.kubectl.details import NO_DETAILS, Details, read_details
from deploy.kubectl.ui.facts import Place, panel
from deploy.kubectl.why import told_node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.kube.client import KubeClient
    from deploy.kubectl.snapshot import Snapshot
    from deploy.kubectl.ui.feed import Feed

# The panel is asked again whenever its cell changes, and every 12 seconds while it is open
# (page/details.js); the details are read again after this time.
DETAILS_SECONDS = 10.0


class Explaining:
    """Explains places. It keeps the details of the last place, which are read on demand."""

    def __init__(self, client: KubeClient, feed: Feed) -> None:
        self._client = client
        self._feed = feed
        self._lock = threading.Lock()
        self._kept: tuple[Place, float, Details] = (Place(), 0.0, NO_DETAILS)

    def explain(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """The panel of what the parameters name. Raises ValueError if there is no such object."""
        snapshot = self._feed.present()
        place = Place.of(parameters)
        return panel(snapshot, place, self._details(snapshot, place))

    def _details(self, snapshot: Snapshot, place: Place) -> Details:
        """What is not in the snapshot: Events, claims, pods. One browser reads at a time."""
        cache = snapshot.cache_by_name.get(place.cache) if place.cache else None
        if place.cache is None or cache is None:
            return NO_DETAILS
        with self._lock:
            kept, until, details = self._kept
            if kept == place and time.monotonic() < until:
                return details
            # While the cluster does not answer, the snapshot says what it can without a wait.
            if not self._feed.is_connected:
                return NO_DETAILS
            node = place.node or told_node(snapshot, cache, cells_of_cache(snapshot, place.cache))
            try:
                details = read_details(self._client, place.cache, groups_of(cache), node)
            except ApiError:
                details = NO_DETAILS
            self._kept = (place, time.monotonic() + DETAILS_SECONDS, details)
            return details
