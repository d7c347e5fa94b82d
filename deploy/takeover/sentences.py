"""Sentences for both directions of a takeover. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.takeover import objects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deploy.kube.kinds import KubeObject

_SHOWN = 3


def first_few(things: Iterable[str]) -> str:
    """The first three of a list, and the number of the others."""
    listed = list(things)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def wait_for_pods(pods: Iterable[KubeObject], label: str) -> Iterator[str]:
    """A request to wait, for each program with running pods. label: its value names the program."""
    left = {
        (pod["metadata"]["namespace"], meta.labels(pod)[label])
        for pod in pods
        if not objects.has_ended(pod)
    }
    for namespace, name in sorted(left):
        yield (
            f"wait until the pods of {name} are gone: kubectl -n {namespace} wait --for=delete pod "
            f"-l {label}={name} --timeout=2m"
        )
