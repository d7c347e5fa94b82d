"""What an agent is known by to its peers: a certificate that it makes at each start.

The certificate and its key are in memory only. Peers know its digest, the fingerprint, from the API
server, so no authority has to sign it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import secrets
import ssl
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable

# It is valid as long as the process lives, whatever the clocks of the nodes say. The second is
# RFC 5280's date of a certificate that does not expire.
_NOT_BEFORE = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_NOT_AFTER = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


def fingerprint_of(certificate: bytes) -> str:
    """The fingerprint of a certificate (DER): its SHA-256 in hexadecimal digits."""
    return hashlib.sha256(certificate).hexdigest()


class Identity:
    """A new P-256 key with its certificate. `certificate` is the DER of the certificate."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        made = _self_signed(key)
        self.certificate = made.public_bytes(serialization.Encoding.DER)
        self.fingerprint = fingerprint_of(self.certificate)
        self._pem = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def server_context(self, trusted: Iterable[bytes] = ()) -> ssl.SSLContext:
        """What a server accepts connections with.

        A client may send no certificate, or one of the `trusted` ones (DER): any other one ends
        the handshake.
        """
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_OPTIONAL
        # Sessions are not resumed: a connection lasts longer than its handshake costs.
        context.num_tickets = 0
        for certificate in trusted:
            context.load_verify_locations(cadata=certificate)
        self._load(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """What a client asks with, once it was introduced. It must compare the fingerprint."""
        context = self.introduction_context()
        self._load(context)
        return context

    def introduction_context(self) -> ssl.SSLContext:
        """What a client introduces itself with: without its certificate.

        A server that does not have the certificate yet would end the handshake. The client must
        compare the fingerprint of the server.
        """
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    @staticmethod
    def _context(protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        # ssl reads a key only from a file: this one is in memory, and gone once it is closed.
        descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, self._pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)


def is_certificate(content: bytes) -> bool:
    """Whether OpenSSL reads these bytes as a certificate (DER)."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=content)
    except (ValueError, ssl.SSLError):
        return False
    return True


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # A name of its own, since OpenSSL looks for the issuer of a certificate by name.
    own = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"localmodel-agent-{secrets.token_hex(8)}")]
    )
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    return (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(own)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        # What OpenSSL asks of a certificate that is its own authority.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
