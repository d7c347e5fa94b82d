"""The hashes of the verified manifests of copies, computed once: a model may have many files. Pure.

See agent.structs.verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.structs.verified import verified

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.structs.manifest import Manifest


class ManifestHashes:
    """Knows the hashes of the last manifests by key."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Manifest, str | None]] = {}

    def of(self, manifest: Manifest) -> str | None:
        """The hash of the verified manifest of a copy; None if it has none."""
        known = self._known.get(manifest.key)
        # Each look at the disk reads the manifest anew.
        if known is None or (known[0] is not manifest and known[0] != manifest):
            found = verified(manifest)
            known = self._known[manifest.key] = manifest, found.hash if found else None
        return known[1]

    def retain(self, keys: Collection[str]) -> None:
        """Forget all other keys."""
        self._known = {key: one for key, one in self._known.items() if key in keys}
