"""The command `localmodel-takeover`."""

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
from deploy.takeover.observe import ConfigUnreadableError, observe_kserve, observe_localmodel
from deploy.takeover.perform import DeletionTimeoutError, perform
from deploy.takeover.sentences import first_few
from deploy.takeover.to_kserve import plan_back
from deploy.takeover.to_localmodel import plan_takeover

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.takeover.steps import Runbook

EPILOG = (
    "Exit codes: 0 nothing is left to do, or it was shown; 1 a step failed (run it again); 2 the "
    "command line or the kubeconfig is wrong; 3 a person has to do something first, which the "
    "output names; 130 interrupted (run it again)."
)

# A call of the hooks that was under way when their controllers were deleted may restore what the
# way back removes. So the command looks again, after a while, until a look finds nothing.
SETTLE_SECONDS = 3.0
MOST_LOOKS = 5


class RestoredError(Exception):
    """What was removed came back each time. The message says what may be the cause."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        api = KubeClient.connect(options.kubeconfig or usual_kubeconfig(), options.context)
        plan = _decide(api, options)
        return _apply(api, plan, options) if options.apply else _show(plan)
    except ConfigError as error:
        print_line(f"localmodel-takeover: {error}", error=True)
        return USAGE
    except (ApiError, ConfigUnreadableError, DeletionTimeoutError, RestoredError) as error:
        print_line(f"localmodel-takeover: {error}", error=True)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        prog="localmodel-takeover",
        description="Shows the steps with which localmodel takes over from KServe's local model "
        "cache, and performs them with --apply. It can be run again at any time.",
        epilog=EPILOG,
    )
    add = made.add_argument
    add("--version", action="version", version=f"%(prog)s {__version__}")
    add("--apply", action="store_true", help="perform the steps; otherwise they are only shown")
    add(
        "--back",
        action="store_true",
        help="the way back: the steps after which KServe's controller can be switched on again",
    )
    add_connection(made)
    add(
        "--kserve-namespace",
        default=names.KSERVE_NAMESPACE,
        metavar="NAME",
        help="namespace of KServe's controller, agent and ConfigMap (default: %(default)s)",
    )
    add(
        "--job-namespace",
        metavar="NAME",
        help="namespace of KServe's download Jobs (default: jobNamespace of its ConfigMap, or "
        f"{names.JOB_NAMESPACE})",
    )
    add(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long to wait for the pods of a download Job to end (default: %(default)g)",
    )
    return made


def _decide(api: KubeClient, options: argparse.Namespace) -> Runbook:
    if options.back:
        return plan_back(observe_localmodel(api))
    return plan_takeover(observe_kserve(api, options.kserve_namespace, options.job_namespace))


def _show(plan: Runbook) -> int:
    print_list("A person has to do this first:", plan.first)
    steps = [f"{step.what}: {step.why}" for step in plan.steps]
    print_list("To do, in this order (--apply does it):", steps)
    return _end(plan, done=not plan.steps)


def _apply(api: KubeClient, plan: Runbook, options: argparse.Namespace) -> int:
    print_list("A person has to do this first; nothing was changed:", plan.first)
    number = 0
    for _ in range(MOST_LOOKS):
        for step in plan.steps:
            number += 1
            print_line(f"{number:>3}. {step.what}: {step.why} …")
            perform(api, step.action, wait_seconds=options.timeout)
            print_line("     done")
        if not (options.back and plan.steps):
            return _end(plan, done=True)
        time.sleep(SETTLE_SECONDS)
        plan = _decide(api, options)
        print_list("A person has to do this first:", plan.first)
    if not plan.steps:
        return _end(plan, done=True)
    raise RestoredError(
        f"something restores what is removed: {first_few(step.what for step in plan.steps)}; see "
        "that localmodel's controllers are deleted (kubectl delete -k metacontroller), and run "
        "this again"
    )


def _end(plan: Runbook, *, done: bool) -> int:
    print_list("Then a person has to do this:", plan.then)
    print_list("Notes:", plan.notes)
    if plan.first or plan.then:
        return A_PERSON_FIRST
    if done:
        print_line("Nothing is left to do.")
    return OK


if __name__ == "__main__":
    sys.exit(main())
