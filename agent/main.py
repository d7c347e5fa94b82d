"""The command `localmodel-agent`."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from agent.commands.exit_codes import INTERRUPTED
from agent.commands.flags import parse
from agent.structs.hidden_modules import hidden, stand_in

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code, or ends the process with it."""
    options = parse(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        # SIGINT before the command has installed its own signal handlers (agent.commands.process).
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    with lean_imports():
        command = _command(options)
    return command(options)


def _command(options: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    # Each command is imported when it runs: the imports of all commands would delay its start.
    if options.command == "pull":
        from agent.commands.pull import pull  # noqa: PLC0415

        return pull
    if options.models is not None:
        from agent.commands.standalone import run_models  # noqa: PLC0415

        return run_models
    # Kubernetes' client would import it, for a login that only a kubeconfig can ask for.
    with nullcontext() if options.kubeconfig else hidden("google.auth"):
        from agent.commands.serve import serve  # noqa: PLC0415

    return serve


@contextmanager
def lean_imports() -> Iterator[None]:
    """Inside, libraries are imported without optional parts that no command uses."""
    # pydantic would search the metadata of all installed packages for plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # requests, also if it is imported later, would guess the encodings of answers: here all are
    # UTF-8 (agent.sources.bodies).
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    for guesser in ("chardet", "charset_normalizer"):
        modules.setdefault(guesser, None)
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection")
    # msgspec would import it for what typing has too.
    with hidden("typing_extensions"):
        import msgspec  # noqa: F401, PLC0415
    # structlog would import rich, for tracebacks of another kind than the agent's, and asyncio, for
    # loggers of coroutines.
    with hidden("rich"), stand_in("asyncio"), _no_collections():
        yield


@contextmanager
def _no_collections() -> Iterator[None]:
    """Inside, and later of what was made inside, Python collects no garbage.

    Modules stay: looking for garbage in them a hundred times would delay the start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
