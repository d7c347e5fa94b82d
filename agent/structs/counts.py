"""What the agent counts, where it happens. Pure: agent.commands.metrics counts for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.structs.failures import FailureKind
    from agent.structs.sizes import EvictionReason


class Counts:
    """Counts nothing. Any thread may call a method. Sizes are in bytes, times in seconds."""

    def received(self, scheme: str, size: int) -> None:
        """Count content that came from an origin. scheme: that of the model's URI."""

    def sent_to_peers(self, size: int) -> None:
        """Count content of models that was sent to agents of other nodes."""

    def received_from_peers(self, scheme: str, size: int) -> None:
        """Count content that came from peers. scheme: that of the model's URI."""

    def published(self, scheme: str) -> None:
        """Count a download that published a copy, or that repaired one."""

    def downloaded(self, size: int, seconds: float) -> None:
        """Count a model that was downloaded whole. seconds: of all its attempts, without waits."""

    def failed(self, scheme: str, kind: FailureKind) -> None:
        """Count an attempt at a download that has failed."""

    def cancelled(self, scheme: str) -> None:
        """Count an attempt that was given up: nobody wants the model now, or it does not fit."""

    def adopted(self) -> None:
        """Count a folder of another program that became a copy."""

    def evicted(self, reason: EvictionReason, size: int) -> None:
        """Count an eviction."""

    def removed(self) -> None:
        """Count a copy that was removed since no entry wants the model."""

    def pod_started(self, saved: int | None) -> None:
        """Count a pod that begins to use a model.

        saved: the size of the copy that was there already; None: there was no copy.
        """

    def damaged(self, files: int) -> None:
        """Count files of a published copy that were found to be damaged."""

    def scrubbed(self, size: int) -> None:
        """Count what was read of published copies to find damage."""

    def peer_lied(self) -> None:
        """Count a peer that is left out, since it sent wrong bytes of a file."""

    def stepped(self, seconds: float) -> None:
        """Count a step of the loop."""

    def requested(self, code: int | None) -> None:
        """Count a request to the API server. code: the status of the answer; None: no answer."""


NO_COUNTS = Counts()
