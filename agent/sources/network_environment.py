"""What the agent's environment says of the network: proxies and authorities of certificates.

These settings are the administrator's and apply to all origins alike. Credentials of origins never
come from here: see agent.structs.credentials.
"""

from __future__ import annotations

import os


def proxy_variable(scheme: str) -> str:
    """The variable that names the proxy for a scheme; where none does, the one that could."""
    names = (f"{scheme}_proxy".upper(), "ALL_PROXY")
    given = (name for name in names if os.environ.get(name) or os.environ.get(name.lower()))
    return next(given, names[0])


def usual_authorities() -> str | bool:
    """The path of the bundle of certificates to trust; True: the ones that requests brings."""
    named = (os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))
    return next((path for path in named if path), True)
