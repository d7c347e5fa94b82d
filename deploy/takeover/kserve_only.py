"""Objects that only KServe's controller reconciles: caches with pvcRef, and kernel caches. Pure.

KServe's controller reconciles them and the local model cache in one process. That process may keep
running beside localmodel, behind the policy of deploy/overlays/kserve/beside, which denies its
writes to localmodel's objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.kube.kinds import NAMESPACE_CACHES, KubeObject, Ref, ref_to
from deploy.takeover import names, objects
from deploy.takeover.sentences import first_few

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BESIDE = "kubectl apply --server-side -k deploy/overlays/kserve/beside"


def list_kserve_only(caches: Iterable[KubeObject], kernel_caches: Iterable[Ref]) -> list[str]:
    """The objects that only KServe's controller reconciles, as text."""
    imported = [
        f"{ref_to(NAMESPACE_CACHES, cache)} (pvcRef)"
        for cache in caches
        if objects.is_imported(cache)
    ]
    return [*imported, *map(str, kernel_caches)]


def ask_to_decide(found: list[str]) -> Iterator[str]:
    """What a person must decide before KServe's controller is switched off."""
    if found:
        yield (
            "decide what happens to the objects that only KServe's controller runs, in one process "
            f"with its local model cache: {first_few(found)}. Once the controller is off, what is "
            "imported or prepared can still be read, and nothing is imported, captured or prepared "
            "any more. To keep the controller for these objects alone: "
            f"{BESIDE} (if KServe's namespace is not kserve, change it in the policy), leave the "
            "controller running, and run this again"
        )


def explain(
    found: list[str], caches: Iterable[KubeObject], *, keeps_running: bool
) -> Iterator[str]:
    """Notes on the objects that stay unchanged. keeps_running: whether KServe's controller runs."""
    if not found:
        return
    if keeps_running:
        yield f"KServe's controller keeps running for {first_few(found)}: these are left alone"
        return
    yield (
        f"only KServe's controller runs {first_few(found)}, and the controller is off: what is "
        "imported or prepared can still be read, and nothing more is imported or prepared. All of "
        "these are left alone, with their Jobs, claims and finalizers"
    )
    held = next(filter(_is_held, caches), None)
    if held is not None:
        name, space = held["metadata"]["name"], held["metadata"]["namespace"]
        yield (
            f"a deletion of {ref_to(NAMESPACE_CACHES, held)}, and of other caches with pvcRef, "
            f"waits for KServe's controller. Without it: kubectl -n {space} delete job "
            f"{name}-import --cascade=foreground, and then remove the finalizer "
            f"{' or '.join(names.KSERVE_FINALIZERS)}: "
            f"kubectl -n {space} edit localmodelnamespacecache {name}"
        )


def _is_held(cache: KubeObject) -> bool:
    return objects.is_imported(cache) and any(
        name in names.KSERVE_FINALIZERS for name in meta.finalizers(cache)
    )
