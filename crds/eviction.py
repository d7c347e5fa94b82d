"""What goes when the models of a group no longer fit."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from crds.base import Int32, JsonObject, validations

HIGH_PERCENT = 90
LOW_PERCENT = 80


class EvictionPolicy(StrEnum):
    """Whether a model that nobody uses may make room for another."""

    NONE = "None"
    LRU = "LRU"

    @classmethod
    def _missing_(cls, _value: object) -> EvictionPolicy:
        """A policy of another version takes nothing away."""
        return cls.NONE


class Retention(StrEnum):
    """Whether a model may be evicted."""

    EVICTABLE = "Evictable"
    PINNED = "Pinned"

    @classmethod
    def _missing_(cls, _value: object) -> Retention:
        """What another version asks for keeps the model."""
        return cls.PINNED


class EvictionSettings(JsonObject):
    """What goes when models do not fit, with all defaults filled in."""

    policy: EvictionPolicy = Field(
        default=EvictionPolicy.NONE, description="None: nothing. LRU: the least recently used."
    )
    high_percent: Int32 = Field(
        default=HIGH_PERCENT, description="More of storageLimit, or of the disk, is too much."
    )
    low_percent: Int32 = Field(
        default=LOW_PERCENT, description="No more than this is taken after an eviction."
    )


class EvictionSpec(JsonObject):
    """What goes when models do not fit."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            (
                (
                    "!has(self.lowPercent) || self.lowPercent <= "
                    f"(has(self.highPercent) ? self.highPercent : {HIGH_PERCENT})"
                ),
                f"lowPercent must not be more than highPercent, which is {HIGH_PERCENT} by default",
            )
        )
    )

    policy: EvictionPolicy | None = Field(
        default=None,
        description="LRU: the group takes every model, and evicts the least recently used ones "
        "where they do not fit. None: it takes no model that does not fit next to what it has, "
        "and evicts none. Default: LRU with nodeSelector, None with persistentVolumeSpec.",
    )
    high_percent: Int32 | None = Field(
        default=None,
        description="Models are evicted when they take more than this part of storageLimit, or "
        f"when more than this part of the node's disk is taken. Default: {HIGH_PERCENT}.",
        ge=1,
        le=100,
    )
    low_percent: Int32 | None = Field(
        default=None,
        description="They are evicted until no more than this part is taken. Default: "
        f"{LOW_PERCENT}, or highPercent if that is less.",
        ge=0,
        le=100,
    )

    def settings(self, default: EvictionPolicy) -> EvictionSettings:
        """With the defaults filled in."""
        high = self.high_percent or HIGH_PERCENT
        low = LOW_PERCENT if self.low_percent is None else self.low_percent
        return EvictionSettings(
            policy=self.policy or default, high_percent=high, low_percent=min(low, high)
        )
