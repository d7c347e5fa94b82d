"""The kubelet's thresholds for disk space, and what they leave for models. Pure. Sizes are bytes.

The kubelet measures each of its file systems by the available bytes, as in statvfs (f_bavail).
Image garbage collection begins when the rounded-down percentage of available bytes is at most
`100 - imageGCHighThresholdPercent`. Evictions of pods begin when less is available than a
threshold of `evictionHard` or `evictionSoft` says.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from pydantic import BaseModel, Field, ValidationError

from crds.quantity import parse_quantity

# The agent leaves this percentage of the file system available beyond the kubelet's thresholds: the
# kubelet rounds percentages down, and other programs write between two measurements.
MARGIN_PERCENT = 2

_IMAGE_GC = "imageGCHighThresholdPercent"
_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)


class FileSystem(StrEnum):
    """A file system that the kubelet watches, as its eviction signals name it.

    NODEFS has the kubelet's own directory, IMAGEFS the images of the container runtime.
    """

    NODEFS = "nodefs"
    IMAGEFS = "imagefs"


_FILE_SYSTEM_OF = {
    _IMAGE_GC: FileSystem.IMAGEFS,
    "nodefs.available": FileSystem.NODEFS,
    "imagefs.available": FileSystem.IMAGEFS,
}


@dataclass(frozen=True)
class Threshold:
    """One threshold: name and value are those of the kubelet's configuration.

    `percent` of the file system, or else `size`, must be available. None: the threshold is off.
    """

    name: str
    value: str
    percent: Fraction | None = None
    size: int | None = None

    @property
    def file_system(self) -> FileSystem:
        """The file system that the threshold is about."""
        return _FILE_SYSTEM_OF[self.name]

    @property
    def is_off(self) -> bool:
        """Whether the kubelet ignores the threshold."""
        return self.percent is None and self.size is None

    def available(self, capacity: int) -> int:
        """The bytes that must be available of a file system of this capacity."""
        if self.percent is not None:
            return math.ceil(self.percent * capacity / 100)
        return self.size or 0

    def __str__(self) -> str:
        """The threshold as in `--kubelet-thresholds`."""
        return f"{self.name}={self.value}"


class Origin(StrEnum):
    """Where thresholds are from: Kubernetes' documentation, a person, or the kubelet itself."""

    DOCUMENTED = "documented"
    GIVEN = "given"
    READ = "read"


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of one kubelet. One name may be there twice: hard and soft."""

    all: tuple[Threshold, ...] = ()
    origin: Origin = Origin.GIVEN

    def of(self, shared: frozenset[FileSystem]) -> tuple[Threshold, ...]:
        """The thresholds of these file systems that are not off."""
        return tuple(one for one in self.all if one.file_system in shared and not one.is_off)

    def __str__(self) -> str:
        """The thresholds as in `--kubelet-thresholds`."""
        return ",".join(map(str, self.all)) or "off"


class SharedBy(StrEnum):
    """How the agent knows which of the kubelet's file systems its root is on."""

    FOUND = "found"
    ASSUMED = "assumed"
    GIVEN = "given"


@dataclass(frozen=True)
class Sharing:
    """The kubelet's file systems that the agent's root is on."""

    file_systems: frozenset[FileSystem] = frozenset()
    known: SharedBy = SharedBy.FOUND


@dataclass(frozen=True)
class KubeletBound:
    """What the kubelet's thresholds mean for the disk of the models.

    `capacity` is the size of the file system, `kept` the bytes of it that the agent leaves
    available, `mark` the bytes that may be taken of the disk before that is reached, counted as the
    disk's used bytes are. `acts` are the taken bytes at which the kubelet's threshold is reached.
    `first` is the threshold that is reached first, of `thresholds`.
    """

    capacity: int
    kept: int
    mark: int
    acts: int
    first: Threshold
    thresholds: Thresholds
    sharing: Sharing

    @property
    def kept_percent(self) -> int:
        """The percentage of the file system that is left available, rounded."""
        return round(self.kept * 100 / self.capacity) if self.capacity else 100


def _threshold(name: str, value: str) -> Threshold:
    """A threshold by the kubelet's rules: 0 % and 100 % available, and 100 % used, are off."""
    if name == _IMAGE_GC:
        if not re.fullmatch(r"\d{1,3}", value, re.ASCII) or int(value) > 100:
            raise ValueError(f"{name}: {value!r} is not a whole number from 0 to 100")
        return Threshold(name, value, Fraction(100 - int(value)) if int(value) < 100 else None)
    if value.endswith("%"):
        match = _PERCENTAGE.fullmatch(value)
        percent = Fraction(match.group(1)) if match else Fraction(-1)
        if not 0 <= percent <= 100:
            raise ValueError(f"{name}: {value!r} is not a percentage from 0% to 100%")
        return Threshold(name, value, percent if percent not in {0, 100} else None)
    try:
        size = parse_quantity(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}, nor a percentage such as 10%") from None
    if not size:
        raise ValueError(f"{name}: {value!r} is not above zero; 0% switches the threshold off")
    return Threshold(name, value, size=size)


# Kubernetes documents these values, and kubelets have them unless their configuration says another.
DEFAULT_THRESHOLDS = Thresholds(
    (
        _threshold(_IMAGE_GC, "85"),
        _threshold("nodefs.available", "10%"),
        _threshold("imagefs.available", "15%"),
    ),
    Origin.DOCUMENTED,
)


def bound_of(
    thresholds: Thresholds, sharing: Sharing, *, capacity: int, available: int, used: int
) -> KubeletBound | None:
    """The bound for a file system as it is now; None if no threshold of the kubelet is about it.

    `used` are the used bytes of the disk for models, by which the mark is counted.
    """
    ours = thresholds.of(sharing.file_systems)
    if not ours:
        return None
    first = max(ours, key=lambda one: one.available(capacity))
    least = min(capacity, first.available(capacity))
    kept = min(capacity, least + -(-capacity * MARGIN_PERCENT // 100))
    return KubeletBound(
        capacity=capacity,
        kept=kept,
        mark=max(0, used + available - kept),
        acts=max(0, used + available - least),
        first=first,
        thresholds=thresholds,
        sharing=sharing,
    )


class _Configuration(BaseModel, defer_build=True):
    """The fields of a KubeletConfiguration that say when the kubelet frees disk space."""

    image_gc: int = Field(alias=_IMAGE_GC)
    hard: dict[str, str] = Field(default_factory=dict, alias="evictionHard")
    soft: dict[str, str] = Field(default_factory=dict, alias="evictionSoft")


def thresholds_of_config(config: object) -> Thresholds:
    """The thresholds of a KubeletConfiguration, as JSON with its defaults filled in.

    A threshold of `evictionHard` or `evictionSoft` that is not there is off. Raises ValueError.
    """
    try:
        found = _Configuration.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"the kubelet's configuration: {where}: {first['msg']}") from None
    evictions = [
        _threshold(name, statements[name])
        for statements in (found.hard, found.soft)
        for name in _FILE_SYSTEM_OF
        if name in statements
    ]
    return Thresholds((_threshold(_IMAGE_GC, str(found.image_gc)), *evictions), Origin.READ)


def parse_thresholds(text: str) -> Thresholds:
    """Thresholds such as `imageGCHighThresholdPercent=85,nodefs.available=10%`, or `off`.

    A threshold that the text does not name has its documented default. Raises ValueError.
    """
    if text == "off":
        return Thresholds()
    found = {one.name: one for one in DEFAULT_THRESHOLDS.all}
    named = set()
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name not in _FILE_SYSTEM_OF:
            raise ValueError(
                f"{part.strip()!r} is not a threshold of the kubelet such as {DEFAULT_THRESHOLDS}"
            )
        if name in named:
            raise ValueError(f"{name} is there twice")
        named.add(name)
        found[name] = _threshold(name, value)
    return Thresholds(tuple(found.values()))
