"""The targets of the control plane, at the sizes for which they are meant."""

from __future__ import annotations

from tests.bench.control import hook_cost, names
from tests.bench.control.figures import Target

TARGETS: dict[tuple[int, int], dict[str, Target]] = {
    (1000, 50): {
        hook_cost.GROUP_CPU: Target(0.4),
        hook_cost.GROUP_PEAK: Target(300),
        hook_cost.NODE_CPU: Target(1),
        names.SPECS: Target(6, of_floor=3),
        names.COUNTED: Target(9, of_floor=1.5),
        names.JOIN: Target(1),
        names.CACHE: Target(4),
        names.WRITES_TO_SPECS: Target(1200),
        names.QUIET: Target(0),
    },
    (5000, 50): {
        names.SPECS: Target(45),
        names.COUNTED: Target(60),
        names.FAILED: Target(0),
        names.ERRORS: Target(0),
        names.QUIET: Target(0),
    },
}
