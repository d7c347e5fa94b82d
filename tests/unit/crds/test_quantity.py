from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from crds.quantity import format_quantity, parse_quantity
from crds.quantity_types import Quantity
from crds.volumes import PersistentVolumeClaimSpec, PersistentVolumeSpec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("1Ki", 1024),
        ("1.5Gi", 1610612736),
        ("140Gi", 140 * 2**30),
        ("1k", 1000),
        ("2M", 2_000_000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("0.1", 1),
        ("100m", 1),
        (".5Ki", 512),
        ("+5", 5),
        ("+1Gi", 2**30),
        ("1m", 1),
        ("1n", 1),
        ("1e-3", 1),
        ("1e-99", 1),
        ("0.5", 1),
        ("-0", 0),
        ("0e5", 0),
        ("1e03", 1000),
        ("1Pi", 2**50),
        ("7Ei", 7 * 2**60),
        ("9.2E", 92 * 10**17),
        # All digits count.
        ("9223372036854775806.000000000000000000000000000000000000000001", 2**63 - 1),
        ("1.00000000000000000000000000000000000000000000000000000000001", 2),
        ("9007199254740993", 2**53 + 1),
        ("8796093022207Mi", 2**63 - 2**20),
        ("9223372036854775807", 2**63 - 1),
        # Kubernetes computes 0 for some of these, and a negative number for others.
        ("9223372036854775808", 2**63 - 1),
        ("8Ei", 2**63 - 1),
        ("9.3E", 2**63 - 1),
        ("20E", 2**63 - 1),
        ("20000P", 2**63 - 1),
        ("1e99", 2**63 - 1),
        ("9" * 64, 2**63 - 1),
    ],
)
def test_parse(text: str, expected: int) -> None:
    assert parse_quantity(text) == expected


@pytest.mark.parametrize("text", ["", "Gi", "1gb", "1 Gi", "1GiB", "ten", "1e", "--1", "0x10"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)
    with pytest.raises(ValidationError):
        TypeAdapter(Quantity).validate_python(text)


@pytest.mark.parametrize("text", ["-1", "-1Gi", "-1m", "-1e-99", "-20E", "-9223372036854775808"])
def test_less_than_zero_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="less than zero"):
        parse_quantity(text)


@pytest.mark.parametrize(
    "text", ["1e100", "1e1000000", "1E-1000000", "1e1000000000000", "9" * 65, "1K", "1Gi\n", "1_0"]
)
def test_what_would_cost_too_much_and_what_python_alone_takes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("1.5Gi", "1.5Gi"),
        ("7Ei", "7Ei"),
        ("9223372036854775806", "9223372036854775806"),
        ("9223372036854775808", "8Ei"),
        ("20E", "8Ei"),
        ("1e99", "8Ei"),
    ],
)
def test_what_is_passed_on_means_the_same_to_kubernetes(text: str, written: str) -> None:
    assert TypeAdapter(Quantity).validate_python(text) == written


def test_templates_are_passed_on_so_too() -> None:
    volume = PersistentVolumeSpec.model_validate({"capacity": {"storage": "20E"}})
    claim = PersistentVolumeClaimSpec.model_validate(
        {"resources": {"requests": {"storage": "1e99"}, "limits": {"storage": "1Gi"}}}
    )
    assert volume.to_json()["capacity"] == {"storage": "8Ei"}
    assert claim.to_json()["resources"] == {
        "requests": {"storage": "8Ei"},
        "limits": {"storage": "1Gi"},
    }


def test_a_quantity_may_be_stored_as_a_number() -> None:
    assert TypeAdapter(Quantity).validate_python(1024) == "1024"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1Ki"),
        (1536, "1.5Ki"),
        (90868376, "86.7Mi"),
        (2**40, "1Ti"),
    ],
)
def test_format(size: int, expected: str) -> None:
    assert format_quantity(size) == expected


@given(st.integers(0, 2**62))
def test_what_is_shown_can_be_read_and_is_near(size: int) -> None:
    assert parse_quantity(format_quantity(size)) == pytest.approx(size, rel=0.05)
