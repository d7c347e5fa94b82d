"""The kubelet's thresholds: what they say, and what the agent leaves of a disk for them."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.structs.kubelet import (
    DEFAULT_THRESHOLDS,
    FileSystem,
    KubeletBound,
    Origin,
    Sharing,
    Thresholds,
    bound_of,
    parse_thresholds,
)

BOTH = frozenset(FileSystem)
GIB = 1 << 30


def bound(
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    shared: frozenset[FileSystem] = BOTH,
    *,
    capacity: int = 1000,
    available: int = 600,
    used: int = 400,
) -> KubeletBound | None:
    return bound_of(thresholds, Sharing(shared), capacity=capacity, available=available, used=used)


def test_the_defaults_are_those_of_kubernetes() -> None:
    text = "imageGCHighThresholdPercent=85,nodefs.available=10%,imagefs.available=15%"
    assert str(DEFAULT_THRESHOLDS) == text
    given = parse_thresholds(text)
    assert given.all == DEFAULT_THRESHOLDS.all
    assert given.origin is Origin.GIVEN


def test_what_is_not_named_is_as_documented() -> None:
    found = parse_thresholds("nodefs.available = 50Gi, imagefs.available=7.5%")
    assert (
        str(found) == "imageGCHighThresholdPercent=85,nodefs.available=50Gi,imagefs.available=7.5%"
    )
    image_gc, nodefs, imagefs = found.all
    assert image_gc.available(1000) == 150
    assert nodefs.available(1000) == 50 * GIB
    assert imagefs.percent == Fraction(15, 2)
    assert imagefs.available(1001) == 76


@pytest.mark.parametrize(
    "text",
    [
        "off",
        "imageGCHighThresholdPercent=100,nodefs.available=0%,imagefs.available=100%",
    ],
)
def test_thresholds_can_be_off(text: str) -> None:
    assert bound(parse_thresholds(text)) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is not a threshold of the kubelet such as imageGC"),
        ("nodefs.available", "is not a threshold"),
        ("memory.available=100Mi", "is not a threshold"),
        ("nodefs.available<10%", "is not a threshold"),
        ("off,nodefs.available=10%", "'off' is not a threshold"),
        ("nodefs.available=10%,nodefs.available=11%", "is there twice"),
        ("nodefs.available=101%", "not a percentage from 0% to 100%"),
        ("nodefs.available=-1%", "not a percentage from 0% to 100%"),
        ("nodefs.available=1e1%", "not a percentage from 0% to 100%"),
        ("nodefs.available=much", "not a quantity such as 500Mi or 140Gi, nor a percentage"),
        ("nodefs.available=0", "not above zero"),
        ("nodefs.available=-5Gi", "less than zero"),
        ("imageGCHighThresholdPercent=85%", "not a whole number from 0 to 100"),
        ("imageGCHighThresholdPercent=101", "not a whole number from 0 to 100"),
    ],
)
def test_mistakes_say_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_thresholds(text)


@pytest.mark.parametrize(
    ("shared", "kept", "first"),
    [
        (BOTH, 170, "imageGCHighThresholdPercent=85"),
        ({FileSystem.IMAGEFS}, 170, "imageGCHighThresholdPercent=85"),
        ({FileSystem.NODEFS}, 120, "nodefs.available=10%"),
    ],
)
def test_the_first_threshold_of_a_shared_file_system_counts(
    shared: set[FileSystem], kept: int, first: str
) -> None:
    found = bound(shared=frozenset(shared))
    assert found is not None
    assert (found.kept, found.mark, str(found.first)) == (kept, 1000 - kept, first)
    assert found.kept_percent == kept // 10


def test_a_file_system_of_its_own_has_no_bound() -> None:
    assert bound(shared=frozenset()) is None


def test_blocks_that_are_reserved_for_root_count_as_taken() -> None:
    """The kubelet compares what is available with the whole, as ext4 reports it."""
    found = bound(available=550, used=400)
    assert found is not None
    assert (found.mark, found.acts) == (400 + 550 - 170, 400 + 550 - 150)


def test_a_disk_that_is_past_the_threshold_has_no_room() -> None:
    full = bound(available=10, used=100, capacity=1000)
    assert full is not None
    assert (full.mark, full.acts) == (0, 0)
    tiny = bound(parse_thresholds("nodefs.available=50Gi"))
    assert tiny is not None
    assert (tiny.kept, tiny.mark, tiny.kept_percent) == (1000, 0, 100)


thresholds = st.builds(
    "imageGCHighThresholdPercent={},nodefs.available={},imagefs.available={}".format,
    st.integers(1, 100),
    st.integers(0, 90).map("{}%".format) | st.integers(1, 10**12),
    st.integers(0, 90).map("{}%".format) | st.integers(1, 10**12),
)


@given(
    text=thresholds,
    capacity=st.integers(100, 10**13),
    shared=st.frozensets(st.sampled_from(FileSystem), min_size=1),
    others=st.fractions(0, 1),
)
def test_at_the_mark_the_kubelet_does_nothing(
    text: str, capacity: int, shared: frozenset[FileSystem], others: Fraction
) -> None:
    """As in image_gc_manager.go and eviction/helpers.go."""
    used = int(capacity * others)
    found = bound(
        parse_thresholds(text), shared, capacity=capacity, available=capacity - used, used=used
    )
    if found is None or found.mark == 0:
        return
    assert found.mark < found.acts
    assert capacity - found.acts >= max(
        one.available(capacity) for one in found.thresholds.of(shared)
    )
    available = capacity - found.mark
    image_gc, nodefs, imagefs = found.thresholds.all
    if FileSystem.IMAGEFS in shared:
        usage = 100 - available * 100 // capacity
        assert image_gc.is_off or usage < int(image_gc.value)
        assert available >= imagefs.available(capacity)
    if FileSystem.NODEFS in shared:
        assert available >= nodefs.available(capacity)
