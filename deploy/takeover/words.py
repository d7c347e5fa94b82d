"""How the plans say things that both of them say. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.takeover import objects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deploy.kube.kinds import KubeObject

_SHOWN = 3


def some(things: Iterable[str]) -> str:
    """The first few of some things, and how many more there are."""
    listed = list(things)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def running_pods(pods: Iterable[KubeObject], label: str) -> Iterator[str]:
    """What to wait for, for the pods of each program that still run; label: what tells them."""
    left = {
        (pod["metadata"]["namespace"], objects.labels_of(pod)[label])
        for pod in pods
        if not objects.has_ended(pod)
    }
    for namespace, name in sorted(left):
        yield (
            f"wait until the pods of {name} are gone: kubectl -n {namespace} wait --for=delete pod "
            f"-l {label}={name} --timeout=2m"
        )
