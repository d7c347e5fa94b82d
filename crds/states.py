"""States of a model on a node: ours, KServe's words for them, and one letter for each."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import WithJsonSchema


class ModelState(StrEnum):
    """State of one model on one node, as its agent reports it."""

    PENDING = "Pending"
    DOWNLOADING = "Downloading"
    DOWNLOADED = "Downloaded"
    FAILED = "Failed"
    EVICTED = "Evicted"
    REMOVING = "Removing"

    @classmethod
    def _missing_(cls, _value: object) -> ModelState:
        """A state of a newer version does not count as available."""
        return cls.PENDING


class KServeModelStatus(StrEnum):
    """Values of LocalModelNode.status.modelStatus."""

    PENDING = "ModelDownloadPending"
    DOWNLOADING = "ModelDownloading"
    DOWNLOADED = "ModelDownloaded"
    ERROR = "ModelDownloadError"

    @classmethod
    def _missing_(cls, _value: object) -> KServeModelStatus:
        """A state of a newer version does not count as available."""
        return cls.PENDING


class KServeNodeStatus(StrEnum):
    """Values of LocalModelCache.status.nodeStatus."""

    NOT_READY = "NodeNotReady"
    PENDING = "NodeDownloadPending"
    DOWNLOADING = "NodeDownloading"
    DOWNLOADED = "NodeDownloaded"
    ERROR = "NodeDownloadError"

    @classmethod
    def _missing_(cls, _value: object) -> KServeNodeStatus:
        """A state of a newer version does not count as available."""
        return cls.PENDING


def _stored(values: type[StrEnum]) -> WithJsonSchema:
    # KServe's schema allows the empty string too, and stored objects must stay writable.
    words = ["", *(value.value for value in values)]
    return WithJsonSchema({"type": "string", "enum": words, "description": "KServe's word."})


StoredModelStatus = Annotated[KServeModelStatus, _stored(KServeModelStatus)]
StoredNodeStatus = Annotated[KServeNodeStatus, _stored(KServeNodeStatus)]


class CopyState(StrEnum):
    """State of one copy as one letter: LocalModelNodeGroup.status.models[].states."""

    PENDING = "P"
    DOWNLOADING = "D"
    AVAILABLE = "A"
    FAILED = "F"
    EVICTED = "E"
    NODE_NOT_READY = "N"


# A model in its grace period is still complete on the disk, but no longer counts as available.
_MODEL_STATUS = {
    ModelState.PENDING: KServeModelStatus.PENDING,
    ModelState.DOWNLOADING: KServeModelStatus.DOWNLOADING,
    ModelState.DOWNLOADED: KServeModelStatus.DOWNLOADED,
    ModelState.FAILED: KServeModelStatus.ERROR,
    # KServe has no word for this state.
    ModelState.EVICTED: KServeModelStatus.PENDING,
    ModelState.REMOVING: KServeModelStatus.PENDING,
}
_COPY_STATE: dict[ModelState | KServeModelStatus, CopyState] = {
    ModelState.PENDING: CopyState.PENDING,
    ModelState.DOWNLOADING: CopyState.DOWNLOADING,
    ModelState.DOWNLOADED: CopyState.AVAILABLE,
    ModelState.FAILED: CopyState.FAILED,
    ModelState.EVICTED: CopyState.EVICTED,
    ModelState.REMOVING: CopyState.PENDING,
    KServeModelStatus.PENDING: CopyState.PENDING,
    KServeModelStatus.DOWNLOADING: CopyState.DOWNLOADING,
    KServeModelStatus.DOWNLOADED: CopyState.AVAILABLE,
    KServeModelStatus.ERROR: CopyState.FAILED,
}
_NODE_STATUS = {
    CopyState.PENDING: KServeNodeStatus.PENDING,
    CopyState.DOWNLOADING: KServeNodeStatus.DOWNLOADING,
    CopyState.AVAILABLE: KServeNodeStatus.DOWNLOADED,
    CopyState.FAILED: KServeNodeStatus.ERROR,
    CopyState.EVICTED: KServeNodeStatus.PENDING,
    CopyState.NODE_NOT_READY: KServeNodeStatus.NOT_READY,
}


def kserve_model_status(state: ModelState) -> KServeModelStatus:
    """KServe's word for a state of ours, in LocalModelNode.status.modelStatus."""
    return _MODEL_STATUS[state]


def copy_state(reported: ModelState | KServeModelStatus) -> CopyState:
    """The letter for a state that an agent, ours or KServe's, reported."""
    return _COPY_STATE[reported]


def kserve_node_status(copy: CopyState) -> KServeNodeStatus:
    """KServe's word for a letter of ours, in LocalModelCache.status.nodeStatus."""
    return _NODE_STATUS[copy]
