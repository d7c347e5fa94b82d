"""A certificate authority for a test, and a server certificate that it signed."""

from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """`bundle` is what a client trusts; `context` is for a server at 127.0.0.1 and localhost.

    `chain` is the file that `context` was loaded from: the server's key and certificate.
    """

    bundle: Path
    chain: Path
    context: ssl.SSLContext

    @property
    def pem(self) -> str:
        return self.bundle.read_text()


def make_authority(folder: Path, *, days: int = 1, hosts: Sequence[str] = ()) -> Authority:
    """A new authority, and a certificate that expires in `days` (negative: expired) days.

    The certificate also names `hosts`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    now = dt.datetime.now(dt.UTC)
    server = authority.issue_cert(
        *("localhost", "127.0.0.1", *hosts), not_before=now - 30 * DAY, not_after=now + days * DAY
    )
    bundle, chain = folder / "authority.pem", folder / "server.pem"
    authority.cert_pem.write_to_path(bundle)
    server.private_key_and_cert_chain_pem.write_to_path(chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.configure_cert(context)
    return Authority(bundle, chain, context)
