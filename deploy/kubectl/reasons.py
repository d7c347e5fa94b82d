"""The link of the chain that each reason of a model on a node is about. Pure.

The reasons are those of docs/conditions.md. The message of the agent says what is wrong and what to
do, so that the words here say only what happens next.
"""

from __future__ import annotations

from typing import NamedTuple

from deploy.kubectl.links import LinkState

TURN, ROOM, ACCESS, SOURCE = "turn", "room", "access", "source"
DISK, DOWNLOAD, CONTENT, COPY, AGENT = "disk", "download", "content", "copy", "agent"


class Meaning(NamedTuple):
    """The link that a reason is about, its state, and what happens next."""

    link: str
    state: LinkState
    next: str = ""


_BY_ITSELF = "the agent continues by itself"
_COMES_BACK = "it comes back when a pod or a service refers to the model"
_RAISE_TURNS = (
    "the download begins by itself; to let more nodes download at the same time, raise "
    "spec.download.maxConcurrentNodes of the group"
)

WAITS = {
    "AwaitingTurn": Meaning(TURN, LinkState.WAITING, _RAISE_TURNS),
    "AwaitingPlace": Meaning(
        ROOM,
        LinkState.WAITING,
        "the download begins by itself; for more downloads at a time, raise --max-downloads of "
        "the agents",
    ),
    "CapacityFull": Meaning(ROOM, LinkState.BROKEN),
    "KubeletThreshold": Meaning(ROOM, LinkState.BROKEN),
    "PodsUnknown": Meaning(
        ROOM, LinkState.BROKEN, "see the log of the node's agent: it cannot list the node's pods"
    ),
    "CheckingAccess": Meaning(ACCESS, LinkState.WAITING, _BY_ITSELF),
    "AwaitingLocalModelCache": Meaning(ACCESS, LinkState.WAITING),
    "AwaitingOlderCache": Meaning(ACCESS, LinkState.WAITING),
    "Referenced": Meaning(DOWNLOAD, LinkState.WAITING, "the model is downloaded again"),
    "Adopting": Meaning(DOWNLOAD, LinkState.WAITING, _BY_ITSELF),
    "Corrupt": Meaning(COPY, LinkState.WAITING, "the damaged files are downloaded again"),
    "MakingView": Meaning(COPY, LinkState.WAITING, _BY_ITSELF),
    "Hashing": Meaning(COPY, LinkState.WAITING, _BY_ITSELF),
}
EVICTIONS = {
    "MadeRoom": Meaning(ROOM, LinkState.WAITING, _COMES_BACK),
    "LimitExceeded": Meaning(
        ROOM, LinkState.WAITING, f"{_COMES_BACK}; raise the group's storageLimit to keep it"
    ),
    "DiskPressure": Meaning(
        ROOM, LinkState.WAITING, f"{_COMES_BACK}; free space on the node to keep it"
    ),
    "Requested": Meaning(
        ROOM,
        LinkState.WAITING,
        f"{_COMES_BACK}; to have it back before, run kubectl localmodel evict --undo",
    ),
}
FAILURES = {
    "NotFound": Meaning(SOURCE, LinkState.BROKEN),
    "Unreachable": Meaning(SOURCE, LinkState.BROKEN),
    "TLS": Meaning(SOURCE, LinkState.BROKEN),
    "Throttled": Meaning(SOURCE, LinkState.WAITING),
    "Changed": Meaning(SOURCE, LinkState.BROKEN),
    "Unsupported": Meaning(SOURCE, LinkState.BROKEN),
    "Denied": Meaning(ACCESS, LinkState.BROKEN),
    "OtherVersion": Meaning(ACCESS, LinkState.BROKEN),
    "Corrupt": Meaning(CONTENT, LinkState.BROKEN),
    "NoSpace": Meaning(ROOM, LinkState.BROKEN),
    "ReadOnly": Meaning(DISK, LinkState.BROKEN),
    "Unavailable": Meaning(DISK, LinkState.BROKEN),
    "OtherDisk": Meaning(DISK, LinkState.BROKEN),
    "NoHardLinks": Meaning(DISK, LinkState.BROKEN),
    "ForeignDirectory": Meaning(COPY, LinkState.BROKEN),
    "Internal": Meaning(AGENT, LinkState.BROKEN, "read the log of the agent, and report the error"),
}
# Reasons of a newer version.
OTHER_WAIT = Meaning(DOWNLOAD, LinkState.WAITING, _BY_ITSELF)
OTHER_EVICTION = EVICTIONS["MadeRoom"]
OTHER_FAILURE = Meaning(SOURCE, LinkState.BROKEN)

# Of a copy that is there, and is evicted as soon as nothing hinders it.
EVICTION_REQUESTED = "EvictionRequested"
KEEP = "it is evicted then; to keep the copy, run kubectl localmodel evict --undo"

# Of the conditions of a group, of Ready of a cache, and of ClaimsBound: those that pass by
# themselves.
GROUP_WAITS = frozenset({"PlanPending", "FindingNodes"})
READY_WAITS = frozenset({"Downloading", "DownloadPending", "Evicted", *GROUP_WAITS})
CLAIM_WAITS = frozenset({"ClaimPending", "AwaitingAccess"})
