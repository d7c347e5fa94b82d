"""Who may ask this agent: the peers whose fingerprints its LocalModelNode lists now.

TLS proves that a peer has the key of its certificate, and OpenSSL accepts only certificates that it
has. The list has fingerprints alone, so each peer introduces itself first: it sends its
certificate.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.peers.identity import fingerprint_of, is_certificate

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from agent.peers.identity import Identity

# Those of agents have about 500 bytes.
MAX_CERTIFICATE_BYTES = 4096


class Admission:
    """The peers that may ask. Any thread may call it."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._lock = threading.Lock()
        # The node of each fingerprint. Replaced, never changed.
        self._allowed: Mapping[str, str] = {}
        # The certificates of the allowed peers that have introduced themselves, by fingerprint.
        self._introduced: dict[str, bytes] = {}
        self._context = identity.server_context()

    @property
    def context(self) -> ssl.SSLContext:
        """What to accept the next connection with."""
        return self._context

    def allow(self, peers: Mapping[str, str]) -> None:
        """Replace the allowed peers: the name of the node of each fingerprint.

        It holds at once, for connections too that exist already.
        """
        with self._lock:
            self._allowed = dict(peers)
            self._introduced = {
                fingerprint: certificate
                for fingerprint, certificate in self._introduced.items()
                if fingerprint in peers
            }

    def introduce(self, certificate: bytes) -> bool:
        """Accept this certificate (DER) in later handshakes; False if it is none of a peer's."""
        fingerprint = fingerprint_of(certificate)
        if fingerprint not in self._allowed or not is_certificate(certificate):
            return False
        with self._lock:
            if fingerprint not in self._allowed:
                return False
            if fingerprint not in self._introduced:
                self._introduced[fingerprint] = certificate
                # A new context each time, as OpenSSL would keep the certificates of all peers
                # that ever were.
                self._context = self._identity.server_context(self._introduced.values())
        return True

    def node(self, certificate: bytes | None) -> str | None:
        """The node of the peer that has proved to have this certificate; None: it may not ask."""
        return self._allowed.get(fingerprint_of(certificate)) if certificate else None
