"""A process that serves a published model to one peer, so that its CPU time can be measured.

Usage: ROOT FINGERPRINT, with an empty FINGERPRINT for plain HTTP. It prints a line of JSON with its
port, its fingerprint and the key and digest of the file, and serves until its stdin ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from pathlib import Path

from agent.disk.store import Store
from agent.peers.admission import Admission
from agent.peers.identity import Identity
from agent.peers.sending import UploadLimits
from agent.peers.server import Server
from agent.peers.shelf import Shelf
from agent.structs.manifest import Access, Grant, ManifestFile, make_manifest
from agent.structs.remote import RemoteFile
from crds.keys import model_key

URI = "https://origin.test/model"
FILE = "weights.bin"
_PART = 16 << 20
PARTS = 32


def main() -> int:
    """Serve until stdin ends."""
    root, fingerprint = Path(sys.argv[1]), sys.argv[2]
    store = Store(root)
    store.open()
    key, digest = _publish(store)
    identity = Identity() if fingerprint else None
    admission = Admission(identity) if identity else None
    if admission is not None:
        admission.allow({fingerprint: "asker"})
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener, Shelf(store), admission, UploadLimits())
    server.start()
    told = {
        "port": server.port,
        "fingerprint": identity.fingerprint if identity else None,
        "key": key,
        "digest": digest,
        "size": PARTS * _PART,
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.close()
    store.close()
    return 0


def _publish(store: Store) -> tuple[str, str]:
    file = RemoteFile(FILE, FILE, PARTS * _PART, "v1")
    key = model_key(URI)
    staging = store.staging(key)
    staging.begin(URI, None, (file,))
    staged, part, digest = staging.staged[FILE], os.urandom(_PART), hashlib.sha256()
    staged.open()
    for number in range(PARTS):
        staged.write(part, number * _PART)
        digest.update(part)
    staged.mark(0, PARTS * _PART)
    staged.seal(PARTS * _PART, sync=True)
    staging.close()
    found = ManifestFile(FILE, PARTS * _PART, digest.hexdigest(), "v1")
    access = Access(origin="https://origin.test", listing="", grants=(Grant(),))
    store.publish(make_manifest(URI, (found,), access=access))
    return key, digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
