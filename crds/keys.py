"""The key of a model: the name of its folder on a disk."""

from __future__ import annotations

import hashlib
from functools import lru_cache

MODEL_KEY_LENGTH = 16


# At most 16,384 URIs, of 2048 characters each: the CRDs take no longer ones.
@lru_cache(maxsize=16_384)
def model_key(source_model_uri: str) -> str:
    """Key of a model: the first 16 hex digits of the SHA-256 of its URI, as written.

    This is KServe's rule. `hf://meta-llama/meta-llama-3-8b-instruct` has the key
    `c277d78a31bc6624`. Two caches with the same URI share the folder.
    """
    return hashlib.sha256(source_model_uri.encode()).hexdigest()[:MODEL_KEY_LENGTH]
