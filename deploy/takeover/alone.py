"""What KServe's controller alone runs: caches with pvcRef, and kernel caches. Pure.

One process runs them and the local model cache, so that with the one the others stop. It may go on
beside localmodel, behind the policy of deploy/overlays/kserve/beside, which lets it write nothing
that is localmodel's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.kube.kinds import NAMESPACE_CACHES, KubeObject, Ref, ref_to
from deploy.takeover import names, objects
from deploy.takeover.words import some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BESIDE = "kubectl apply --server-side -k deploy/overlays/kserve/beside"


def run_by_kserve_alone(caches: Iterable[KubeObject], kernel_caches: Iterable[Ref]) -> list[str]:
    """What there is of it, in words."""
    imported = [
        f"{ref_to(NAMESPACE_CACHES, cache)} (pvcRef)"
        for cache in caches
        if objects.is_imported(cache)
    ]
    return [*imported, *map(str, kernel_caches)]


def to_decide(alone: list[str]) -> Iterator[str]:
    """What a person decides before KServe's controller is off."""
    if alone:
        yield (
            "decide what becomes of what KServe's controller alone runs, in one process with its "
            f"local model cache: {some(alone)}. Once it is off, what is imported or prepared goes "
            "on being read, and nothing is imported, captured or prepared any more. To keep it "
            f"for that, and for nothing that is localmodel's: {BESIDE} (its policy names KServe's "
            "namespace: change it there, unless that is kserve), leave it running, and run this "
            "again"
        )


def left_alone(alone: list[str], caches: Iterable[KubeObject], *, goes_on: bool) -> Iterator[str]:
    """That nothing of it is touched, and what stops. goes_on: whether the controller runs."""
    if not alone:
        return
    if goes_on:
        yield f"KServe's controller goes on for {some(alone)}: all of that is left alone"
        return
    yield (
        f"KServe's controller alone runs {some(alone)}, and it is off: what is imported or "
        "prepared goes on being read, and nothing more is done. All of that is left alone, Jobs, "
        "claims and finalizers too"
    )
    held = next(filter(_is_held, caches), None)
    if held is not None:
        name, space = held["metadata"]["name"], held["metadata"]["namespace"]
        yield (
            f"a deletion of {ref_to(NAMESPACE_CACHES, held)}, and of others with pvcRef, waits for "
            f"KServe's controller. Without it: kubectl -n {space} delete job {name}-import "
            f"--cascade=foreground, and then take {' or '.join(names.KSERVE_FINALIZERS)} off: "
            f"kubectl -n {space} edit localmodelnamespacecache {name}"
        )


def _is_held(cache: KubeObject) -> bool:
    return objects.is_imported(cache) and any(
        name in names.KSERVE_FINALIZERS for name in objects.finalizers(cache)
    )
