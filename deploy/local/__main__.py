"""Entry point: `python -m deploy.local COMMAND`."""

from __future__ import annotations

import importlib
import sys

from deploy.local.signals import end_on_signals, exit_on_signals

if __name__ == "__main__":
    # Before the slow imports, so that Ctrl-C during them prints no traceback.
    end_on_signals()
    cli = importlib.import_module("deploy.local.cli")
    exit_on_signals()
    sys.exit(cli.main(sys.argv[1:]))
