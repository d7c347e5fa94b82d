from __future__ import annotations

import pytest

from hooks.memo import Memo


def test_what_comes_again_is_made_once_and_what_is_kept_is_bounded() -> None:
    made: list[bytes] = []

    def make(raw: bytes) -> int:
        made.append(raw)
        return len(raw)

    memo = Memo(make, 10)
    assert [memo(raw) for raw in (b"aaaa", b"bbbb", b"aaaa")] == [4, 4, 4]
    assert made == [b"aaaa", b"bbbb"]
    # The least recently used value is dropped.
    memo(b"cccc")
    memo(b"aaaa")
    assert made == [b"aaaa", b"bbbb", b"cccc"]
    memo(b"bbbb")
    assert made[-1] == b"bbbb"
    # A value that is larger than the bound is made each time.
    assert [memo(b"x" * 11), memo(b"x" * 11)] == [11, 11]
    assert made.count(b"x" * 11) == 2


def test_what_cannot_be_made_is_not_kept() -> None:
    memo = Memo(int)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            memo(b"x")
