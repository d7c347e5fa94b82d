"""Entry point: `python -m deploy.local COMMAND`."""

from __future__ import annotations

import importlib
import sys

from deploy.local.signals import exit_on_signals

if __name__ == "__main__":
    # Before the imports that take a while, so that Ctrl-C is quiet from the first moment.
    exit_on_signals()
    sys.exit(importlib.import_module("deploy.local.cli").main(sys.argv[1:]))
