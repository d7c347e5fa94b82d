"""The command `localmodel-uninstall`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from agent.cluster.connection import ConfigError
from crds.version import __version__
from deploy.kube.client import KubeClient
from deploy.kube.errors import ApiError
from deploy.takeover import names
from deploy.takeover.console import (
    A_PERSON_FIRST,
    FAILED,
    INTERRUPTED,
    OK,
    USAGE,
    add_connection,
    print_line,
    print_list,
    usual_kubeconfig,
)
from deploy.takeover.observe import observe_localmodel
from deploy.takeover.perform import DeletionTimeoutError, ModelsLeftError, perform
from deploy.takeover.to_nothing import plan_uninstall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.takeover.steps import Runbook

# A call of a hook that was under way when its controller was deleted may restore something.
ROUNDS = 5
PAUSE_SECONDS = 2.0

EPILOG = (
    "Exit codes: 0 done, or shown; 1 a step failed (run it again); 2 the command line or the "
    "kubeconfig is wrong; 3 a person has to do something first, which the output names; 130 "
    "interrupted (run it again)."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        api = KubeClient.connect(options.kubeconfig or usual_kubeconfig(), options.context)
        return _apply(api, options) if options.apply else _show(_decide(api, options))
    except ConfigError as error:
        print_line(f"localmodel-uninstall: {error}", error=True)
        return USAGE
    except (ApiError, DeletionTimeoutError, ModelsLeftError) as error:
        print_line(f"localmodel-uninstall: {error}", error=True)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="localmodel-uninstall",
        description="Shows the steps after which localmodel's programs can be deleted, and "
        "performs them with --apply. It needs neither Metacontroller nor the hooks, and can be run "
        "again.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"%(prog)s {__version__}")
    add(
        "--models",
        choices=("keep", "remove"),
        required=True,
        help="keep: models, caches, groups, claims and volumes stay, and a later install finds "
        "them; remove: the agents delete all models, and then all of localmodel's objects go",
    )
    add("--apply", action="store_true", help="perform the steps; otherwise they are only shown")
    add_connection(parser)
    add(
        "--namespace",
        default=names.NAMESPACE,
        metavar="NAME",
        help="namespace of localmodel's hooks and agents (default: %(default)s)",
    )
    add(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="how long to wait for the agents to delete the models (default: %(default)g)",
    )
    return parser


def _decide(api: KubeClient, options: argparse.Namespace) -> Runbook:
    observed = observe_localmodel(api, options.namespace)
    return plan_uninstall(observed, options.namespace, remove=options.models == "remove")


def _show(plan: Runbook) -> int:
    print_list("A person has to do this first:", plan.first)
    steps = [f"{step.what}: {step.why}" for step in plan.steps]
    print_list("To do, in this order (--apply does it):", steps)
    return _end(plan)


def _apply(api: KubeClient, options: argparse.Namespace) -> int:
    number = 0
    for _ in range(ROUNDS):
        plan = _decide(api, options)
        if not plan.steps:
            break
        for step in plan.steps:
            number += 1
            print_line(f"{number:>3}. {step.what}: {step.why} …")
            perform(api, step.action, wait_seconds=options.timeout)
            print_line("     done")
        time.sleep(PAUSE_SECONDS)
    if plan.steps:
        left = "; ".join(step.what for step in plan.steps)
        print_line(f"localmodel-uninstall: still to do after {ROUNDS} rounds: {left}", error=True)
        return FAILED
    print_list("A person has to do this first:", plan.first)
    return _end(plan)


def _end(plan: Runbook) -> int:
    if plan.first:
        return A_PERSON_FIRST
    if not plan.steps:
        print_line("Nothing is left to do here.")
    print_list("Notes:", plan.notes)
    return OK


if __name__ == "__main__":
    sys.exit(main())
