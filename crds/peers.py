"""Peers: agents of a group that fetch pieces of model files from each other."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crds.base import ATOMIC_LIST, JsonObject, is_falsy

# An IP address and a port; no host name, which would have to be looked up.
ADDRESS = r"^([0-9.]{7,15}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$"
FINGERPRINT = r"^[0-9a-f]{64}$"
MANIFEST_HASH = r"^sha256:[0-9a-f]{64}$"
ADDRESS_MAX = 64

ManifestHash = Annotated[str, Field(pattern=MANIFEST_HASH, max_length=71)]


class PeerExchange(StrEnum):
    """Whether the nodes of a group fetch from each other."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"

    @classmethod
    def _missing_(cls, _value: object) -> PeerExchange:
        """A mode of a newer version exchanges nothing."""
        return cls.DISABLED


class AgentPeer(JsonObject):
    """How other agents reach an agent, and how they recognize it."""

    address: str = Field(
        description="IP address and port where the agent serves pieces, such as 10.0.0.7:9444 or "
        "[fd00::7]:9444.",
        pattern=ADDRESS,
        max_length=ADDRESS_MAX,
    )
    fingerprint: str = Field(
        description="SHA-256 of the agent's certificate (DER), in hexadecimal digits. The agent "
        "makes a new certificate at each start.",
        pattern=FINGERPRINT,
        max_length=64,
    )


class PeerEndpoint(AgentPeer):
    """An agent of the group that serves pieces."""

    node: str = Field(description="Name of the node.", max_length=253)
    zone: str = Field(
        default="",
        description="Zone of the node, by its label topology.kubernetes.io/zone; empty: unknown.",
        max_length=63,
        exclude_if=is_falsy,
    )


class ExchangePeer(PeerEndpoint):
    """An agent that a node fetches pieces from, and that may fetch from it."""

    seed: bool = Field(
        default=False,
        description="Whether the node is a seed: see exchange.seed.",
        exclude_if=is_falsy,
    )


class Exchange(JsonObject):
    """A node's part in the exchange of its group. Absent: the group exchanges nothing."""

    seed: bool = Field(
        default=False,
        description="Whether the node may fetch from the origin at once. The other nodes let their "
        "peers begin, and fetch from the origin what no peer has.",
        exclude_if=is_falsy,
    )
    peers: tuple[ExchangePeer, ...] = Field(
        default=(),
        description="The agents that may fetch from this node and that it fetches from, sorted by "
        "name. Each of them has this node in its own list. At most 32, and the other seeds of a "
        "seed beside them.",
        json_schema_extra=ATOMIC_LIST,
    )
