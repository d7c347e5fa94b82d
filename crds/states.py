"""States of a model on a node, in our words, in KServe's, and as letters."""

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
        """A state of another version is none that counts as there."""
        return cls.PENDING


class KServeModelStatus(StrEnum):
    """Values of LocalModelNode.status.modelStatus."""

    PENDING = "ModelDownloadPending"
    DOWNLOADING = "ModelDownloading"
    DOWNLOADED = "ModelDownloaded"
    ERROR = "ModelDownloadError"

    @classmethod
    def _missing_(cls, _value: object) -> KServeModelStatus:
        """A state of another version is none that counts as there."""
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
        """A state of another version is none that counts as there."""
        return cls.PENDING


def _stored(values: type[StrEnum]) -> WithJsonSchema:
    # KServe's own schema has the empty word too, and what is stored must stay writable.
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


# A model in its grace period is still whole on the disk, but no longer counts as there.
_MODEL_STATUS = {
    ModelState.PENDING: KServeModelStatus.PENDING,
    ModelState.DOWNLOADING: KServeModelStatus.DOWNLOADING,
    ModelState.DOWNLOADED: KServeModelStatus.DOWNLOADED,
    ModelState.FAILED: KServeModelStatus.ERROR,
    # KServe's words have none for it.
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
    """What KServe's map shows for a state of ours."""
    return _MODEL_STATUS[state]


def copy_state(told: ModelState | KServeModelStatus) -> CopyState:
    """The letter for what an agent, ours or KServe's, reported."""
    return _COPY_STATE[told]


def kserve_node_status(copy: CopyState) -> KServeNodeStatus:
    """What KServe's map shows for a letter of ours."""
    return _NODE_STATUS[copy]
