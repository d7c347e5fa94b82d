"""The command `localmodel-agent`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from agent.commands.exit_codes import INTERRUPTED
from agent.commands.flags import parse

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code, or ends the process with it."""
    options = parse(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        # SIGINT before the command has installed its own signal handlers (agent.commands.process).
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    # Each command is imported when it runs: the imports of all commands would delay its start.
    if options.command == "pull":
        from agent.commands.pull import pull  # noqa: PLC0415

        return pull(options)
    if options.models is not None:
        from agent.commands.standalone import run_models  # noqa: PLC0415

        return run_models(options)
    from agent.commands.serve import serve  # noqa: PLC0415

    return serve(options)


if __name__ == "__main__":
    sys.exit(main())
