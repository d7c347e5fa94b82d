from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.structs.failures import (
    MAX_BACKOFF_SECONDS,
    FailureKind,
    backoff,
    public_uri,
    scheme,
)


@pytest.mark.parametrize(
    ("kind", "attempts", "jitter", "seconds"),
    [
        (FailureKind.UNREACHABLE, 1, 0.0, 1.0),
        (FailureKind.UNREACHABLE, 4, 0.0, 8.0),
        (FailureKind.UNREACHABLE, 99, 0.0, 60.0),
        (FailureKind.NOT_FOUND, 1, 0.0, 5.0),
        (FailureKind.NOT_FOUND, 1, 1.0, 3.75),
        (FailureKind.DENIED, 3, 0.0, 20.0),
        (FailureKind.THROTTLED, 1, 0.0, 60.0),
        (FailureKind.THROTTLED, 1, 1.0, 75.0),
        (FailureKind.THROTTLED, 9, 1.0, 300.0),
        (FailureKind.NO_SPACE, 1, 0.0, 30.0),
        (FailureKind.NO_SPACE, 9, 0.0, 300.0),
    ],
)
def test_backoff_doubles_to_a_cap_of_its_kind(
    kind: FailureKind, attempts: int, jitter: float, seconds: float
) -> None:
    assert backoff(kind, attempts, jitter) == seconds


@given(st.sampled_from(FailureKind), st.integers(1, 10**9), st.floats(0, 1))
def test_backoff_never_gives_up_and_never_waits_long(
    kind: FailureKind, attempts: int, jitter: float
) -> None:
    assert 0 < backoff(kind, attempts, jitter) <= MAX_BACKOFF_SECONDS


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket/model", "s3://bucket/model"),
        ("https://me:pw@host:8443/a%20b.bin?X-Sig=s#f", "https://host:8443/a%20b.bin?…"),
        ("http://[::1/x?token=s", "http://…"),
        ("file:///srv/models/m", "file:///srv/models/m"),
    ],
)
def test_public_uri_holds_no_secret(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown


def test_scheme_is_lower_case() -> None:
    assert scheme("FILE:///etc/passwd") == "file"
