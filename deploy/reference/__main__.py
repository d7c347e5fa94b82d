"""Make the references of docs/ from the code: flags, settings and metrics.

`python -m deploy.reference` writes the pages; `--check` fails when a page differs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from prometheus_client import REGISTRY

from agent.commands import flags as agent_flags
from agent.commands import metrics as agent_metrics
from crds.generated import write_or_check
from deploy.kubectl.main import plugin
from deploy.reference import flags, metrics
from deploy.takeover.main import parser as takeover_parser
from deploy.takeover.uninstall import parser as uninstall_parser
from hooks import metrics as _of_hooks  # noqa: F401 - its import makes the metrics
from hooks.access import TOKEN_FILE_VARIABLE
from hooks.settings import VARIABLES

_SETTINGS = VARIABLES | {
    TOKEN_FILE_VARIABLE: "file with the token that calls of the hooks must send; see security.md "
    "(default: none, every call is answered)"
}


def pages() -> dict[Path, str]:
    """Path and content of each page."""
    _, commands = agent_flags.parsers()
    programs = [
        flags.Command("localmodel-agent run", commands["run"], agent_flags.VARIABLES),
        flags.Command("localmodel-agent pull", commands["pull"]),
        flags.Command("localmodel-takeover", takeover_parser()),
        flags.Command("localmodel-uninstall", uninstall_parser()),
    ]
    states = [
        metrics.Family(agent_metrics.PREFIX + state.name, "gauge", state.text, state.labels)
        for state in agent_metrics.STATES.values()
    ]
    return {
        Path("docs/flags.md"): flags.page(programs, _SETTINGS, plugin),
        Path("docs/metrics.md"): metrics.page(
            {
                "The agents": [*metrics.gathered(agent_metrics.Metrics().registry), *states],
                "The hooks": metrics.gathered(REGISTRY),
            }
        ),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or with --check name those that differ and return 1."""
    # A variable of this process would be the default of its flag.
    for name in [name for name in os.environ if name.startswith(agent_flags.VARIABLES)]:
        del os.environ[name]
    return write_or_check(
        pages,
        arguments,
        program="deploy.reference",
        description=__doc__,
        source="the programs",
    )


if __name__ == "__main__":
    sys.exit(main())
