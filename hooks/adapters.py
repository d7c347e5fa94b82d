"""LoRA adapters of an LLMInferenceService, from the annotation that KServe's webhook writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from hooks.envelope import decoder

# JSON of the annotation, by adapter name. Older versions of KServe also write sourceUri and
# pvcName.
_ENTRIES = dict[str, dict[str, Any] | None] | None
_DECODE_ERRORS = (msgspec.MsgspecError, RecursionError)


@dataclass(frozen=True)
class Adapter:
    """The cache of one adapter.

    namespace: of a LocalModelNamespaceCache; empty for a LocalModelCache. claim: name of the claim
    that the pods mount, if the annotation has it.
    """

    cache: str
    namespace: str = ""
    claim: str | None = None

    def is_of(self, cache: str, namespace: str, service_namespace: str) -> bool:
        """Whether an adapter of a service in that namespace uses this cache."""
        in_reach = not namespace or namespace == service_namespace
        return in_reach and (self.cache, self.namespace) == (cache, namespace)


def read_adapters(annotation: str | None) -> tuple[Adapter, ...] | None:
    """The adapters that have a cache; None if the annotation is not what KServe writes."""
    if not annotation:
        return ()
    try:
        entries = decoder(_ENTRIES).decode(annotation)
    except _DECODE_ERRORS:
        return None
    adapters = []
    for entry in (entries or {}).values():
        # Go's encoding/json matches field names in any case, and treats null as absent.
        fields = {key.lower(): value for key, value in (entry or {}).items() if value is not None}
        cache, namespace = fields.get("cache", ""), fields.get("namespace", "")
        if not isinstance(cache, str) or not isinstance(namespace, str):
            return None
        claim = fields.get("pvcname")
        if cache:
            adapters.append(Adapter(cache, namespace, claim if isinstance(claim, str) else None))
    return tuple(adapters)
