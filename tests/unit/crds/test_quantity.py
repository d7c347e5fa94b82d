from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from crds.quantity import Quantity, format_quantity, parse_quantity


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
        ("-1Gi", -(2**30)),
        ("+5", 5),
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
