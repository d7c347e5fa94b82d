"""What the control plane should reach, at the sizes for which that is said."""

from __future__ import annotations

from tests.bench.control import hook_cost, names
from tests.bench.control.figures import Reach

REACHES: dict[tuple[int, int], dict[str, Reach]] = {
    (1000, 50): {
        hook_cost.GROUP_CPU: Reach(0.4),
        hook_cost.GROUP_PEAK: Reach(300),
        hook_cost.NODE_CPU: Reach(1),
        names.SPECS: Reach(6, of_floor=3),
        names.COUNTED: Reach(9, of_floor=1.5),
        names.JOIN: Reach(1),
        names.CACHE: Reach(4),
        names.WRITES_TO_SPECS: Reach(1200),
        names.QUIET: Reach(0),
    },
    (5000, 50): {
        names.SPECS: Reach(45),
        names.COUNTED: Reach(60),
        names.FAILED: Reach(0),
        names.ERRORS: Reach(0),
        names.QUIET: Reach(0),
    },
}
