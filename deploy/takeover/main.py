"""The command `localmodel-takeover`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cluster.report import ConfigError
from crds.version import __version__
from deploy.kube.client import KubeClient
from deploy.kube.errors import ApiError
from deploy.takeover import names
from deploy.takeover.observe import ConfigUnreadableError, observe_kserve, observe_localmodel
from deploy.takeover.perform import DeletionTimeoutError, perform
from deploy.takeover.to_kserve import plan_back
from deploy.takeover.to_localmodel import plan_takeover

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deploy.takeover.steps import Runbook

OK = 0
FAILED = 1
# argparse's own for a wrong command line.
USAGE = 2
A_PERSON_FIRST = 3
INTERRUPTED = 130

EPILOG = (
    "Exit codes: 0 nothing is left to do, or it was shown; 1 a step failed (run it again); 2 the "
    "command line or the kubeconfig is wrong; 3 a person has to do something first, which the "
    "output names; 130 interrupted (run it again)."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        api = KubeClient.connect(options.kubeconfig or _usual_kubeconfig(), options.context)
        plan = _decide(api, options)
        return _apply(api, plan, options.timeout) if options.apply else _show(plan)
    except ConfigError as error:
        _print(f"localmodel-takeover: {error}", error=True)
        return USAGE
    except (ApiError, ConfigUnreadableError, DeletionTimeoutError) as error:
        _print(f"localmodel-takeover: {error}", error=True)
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
    add(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="how to reach the API server (default: $KUBECONFIG, else ~/.kube/config if it exists, "
        "else the cluster that this pod runs in)",
    )
    add("--context", metavar="NAME", help="context of the kubeconfig (default: its current one)")
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


def _usual_kubeconfig() -> Path | None:
    """The kubeconfig that kubectl would read; None if there is none, as in a pod."""
    named = os.environ.get("KUBECONFIG")
    usual = Path(named) if named else Path.home() / ".kube/config"
    return usual if named or usual.exists() else None


def _decide(api: KubeClient, options: argparse.Namespace) -> Runbook:
    if options.back:
        return plan_back(observe_localmodel(api))
    return plan_takeover(observe_kserve(api, options.kserve_namespace, options.job_namespace))


def _show(plan: Runbook) -> int:
    _print_list("A person has to do this first:", plan.first)
    steps = [f"{step.what}: {step.why}" for step in plan.steps]
    _print_list("To do, in this order (--apply does it):", steps)
    return _end(plan, done=not plan.steps)


def _apply(api: KubeClient, plan: Runbook, wait_seconds: float) -> int:
    _print_list("A person has to do this first; nothing was changed:", plan.first)
    for number, step in enumerate(plan.steps, 1):
        _print(f"{number:>3}. {step.what}: {step.why} …")
        perform(api, step.action, wait_seconds=wait_seconds)
        _print("     done")
    return _end(plan, done=True)


def _end(plan: Runbook, *, done: bool) -> int:
    _print_list("Then a person has to do this:", plan.then)
    _print_list("Notes:", plan.notes)
    if plan.first or plan.then:
        return A_PERSON_FIRST
    if done:
        _print("Nothing is left to do.")
    return OK


def _print_list(title: str, sentences: Iterable[str]) -> None:
    listed = list(sentences)
    if listed:
        _print(title)
    for number, sentence in enumerate(listed, 1):
        _print(f"{number:>3}. {sentence}")


def _print(text: str, *, error: bool = False) -> None:
    # Line by line, so that a pipe shows each step when it begins.
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
