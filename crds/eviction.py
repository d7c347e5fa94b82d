"""Eviction: which models a group gives up when they do not fit."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from crds.base import Int32, JsonObject, validations

HIGH_PERCENT = 90
LOW_PERCENT = 80


class EvictionPolicy(StrEnum):
    """Whether an unused model may be evicted to make room for another."""

    NONE = "None"
    LRU = "LRU"

    @classmethod
    def _missing_(cls, _value: object) -> EvictionPolicy:
        """A policy of a newer version evicts nothing."""
        return cls.NONE


class Retention(StrEnum):
    """Whether a model may be evicted."""

    EVICTABLE = "Evictable"
    PINNED = "Pinned"

    @classmethod
    def _missing_(cls, _value: object) -> Retention:
        """A retention of a newer version keeps the model."""
        return cls.PINNED


class EvictionSettings(JsonObject):
    """Settings of eviction with all defaults filled in."""

    policy: EvictionPolicy = Field(
        default=EvictionPolicy.NONE,
        description="None: no model is evicted. LRU: the least recently used models are.",
    )
    high_percent: Int32 = Field(
        default=HIGH_PERCENT,
        description="Percent of storageLimit, and of the disk, above which models are evicted.",
    )
    low_percent: Int32 = Field(
        default=LOW_PERCENT, description="Percent that is in use at most after an eviction."
    )


class EvictionSpec(JsonObject):
    """Which models are evicted, and when."""

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
        description="LRU: the group admits every model and evicts the least recently used ones "
        "where they do not fit. None: the group admits no model that does not fit beside the "
        "admitted ones, and evicts none. Default: LRU with nodeSelector, None with "
        "persistentVolumeSpec.",
    )
    high_percent: Int32 | None = Field(
        default=None,
        description="Models are evicted when they take more than this percentage of storageLimit, "
        f"or when more than this percentage of the node's disk is used. Default: {HIGH_PERCENT}.",
        ge=1,
        le=100,
    )
    low_percent: Int32 | None = Field(
        default=None,
        description="Models are evicted until no more than this percentage is used. Default: "
        f"{LOW_PERCENT}, or highPercent if that is less.",
        ge=0,
        le=100,
    )

    def settings(self, default: EvictionPolicy) -> EvictionSettings:
        """The settings with defaults filled in."""
        high = self.high_percent or HIGH_PERCENT
        low = LOW_PERCENT if self.low_percent is None else self.low_percent
        return EvictionSettings(
            policy=self.policy or default, high_percent=high, low_percent=min(low, high)
        )
