"""Make the dashboard of deploy/components/monitoring: `python -m deploy.monitoring [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path

from crds.generated import write_or_check
from deploy.monitoring.dashboard import dashboard_json

DASHBOARD = Path("deploy/components/monitoring/dashboard.json")


def main(arguments: list[str] | None = None) -> int:
    """Write the file, or with --check say that it differs and return 1."""
    return write_or_check(
        lambda: {DASHBOARD: dashboard_json()},
        arguments,
        program="deploy.monitoring",
        description=__doc__,
        source="deploy/monitoring",
    )


if __name__ == "__main__":
    sys.exit(main())
