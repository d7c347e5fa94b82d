"""The server of a URL. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def server_of(url: str) -> str:
    """Scheme, host and port of a URL in a normal form, for comparisons. Raises ValueError.

    `https://Files.example.com/a` and `https://files.example.com:443` are the same.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    named = f"[{host}]" if ":" in host else host
    port = parts.port if parts.port is not None else _PORTS.get(parts.scheme)
    return f"{parts.scheme}://{named}:{port}"
