"""Make the dashboard of deploy/components/monitoring: `python -m deploy.monitoring [--check]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.monitoring.dashboard import dashboard_json

DASHBOARD = Path(__file__).resolve().parents[1] / "components" / "monitoring" / "dashboard.json"


def main() -> int:
    """Write the file, or with --check say that it differs and return 1."""
    parser = argparse.ArgumentParser(prog="deploy.monitoring", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    is_check = parser.parse_args().check
    content = dashboard_json()
    if DASHBOARD.exists() and DASHBOARD.read_text() == content:
        return 0
    if not is_check:
        DASHBOARD.write_text(content)
    done = "differs from deploy/monitoring: run `make generate`" if is_check else "written"
    sys.stdout.write(f"{DASHBOARD.name}: {done}\n")
    return 1 if is_check else 0


if __name__ == "__main__":
    sys.exit(main())
