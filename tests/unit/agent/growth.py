"""How work grows with its input: counted in calls, which no clock and no busy machine disturbs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# So many things, and four times as many.
FEW = 25
MANY = 4 * FEW
# Four times the work, and a little for sorting. What compares all with all takes up to 16.
MOST = 4.4


def calls(work: Callable[[], object]) -> int:
    """How many calls of functions, Python's or C's, this thread makes for it."""
    count = 0

    def saw(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(saw)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def assert_grows_no_faster_than_its_input(prepare: Callable[[int], Callable[[], object]]) -> None:
    """`prepare` makes ready for so many things, and returns the work to be counted."""
    # What is made once, such as a validator, is made here.
    prepare(2)()
    few, many = calls(prepare(FEW)), calls(prepare(MANY))
    assert few > FEW, "it does not do its work"
    assert many <= MOST * few, f"{few} calls for {FEW}, and {many} for {MANY}"
