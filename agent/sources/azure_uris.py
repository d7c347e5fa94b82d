"""Which URIs are those of Azure's blobs: decided for each URI, also where Azure is not used."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from agent.structs.failures import scheme

BLOB_HOST = re.compile(
    r"[a-z0-9-]+\."
    r"(blob\.core\.(windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)"
    r"|z[0-9]{1,2}\.blob\.storage\.azure\.net)",
    re.IGNORECASE,
)


def is_blob_uri(uri: str) -> bool:
    """Whether a URI is one of Azure's blobs: azure://, or https:// on one of its hosts."""
    if scheme(uri) == "azure":
        return True
    try:
        host = urlsplit(uri).hostname or ""
    except ValueError:
        return False
    return scheme(uri) == "https" and BLOB_HOST.fullmatch(host) is not None
