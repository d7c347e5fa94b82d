"""Checksums that an S3-compatible store has of whole objects."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from agent.sources.base import Checksum, ChecksumAlgorithm
from agent.sources.waits import current, resume

if TYPE_CHECKING:
    from agent.sources.base import RemoteFile

# Checksums cost a request for each object: not worth it for small ones.
CHECKSUM_BYTES = 8 << 20
CHECKSUM_THREADS = 16
_MD5 = re.compile("[0-9a-f]{32}")
# The names of full-object checksums in answers, strongest wish first.
_CHECKSUMS = {
    "ChecksumCRC64NVME": ChecksumAlgorithm.CRC64NVME,
    "ChecksumCRC32C": ChecksumAlgorithm.CRC32C,
    "ChecksumSHA256": ChecksumAlgorithm.SHA256,
}


def with_checksums(
    client: Any, bucket: str, entries: list[dict[str, Any]], files: list[RemoteFile]
) -> list[RemoteFile]:
    """The files with the checksums of whole objects, where the store says that it has some.

    A multi-part upload may have checksums of its parts only: those say nothing of a range.
    """

    def ask(entry: dict[str, Any], file: RemoteFile) -> RemoteFile:
        whole = entry.get("ChecksumType") == "FULL_OBJECT"
        if not whole or not entry.get("ChecksumAlgorithm") or entry["Size"] < CHECKSUM_BYTES:
            return file
        try:
            head = head_of(client, bucket, file)
        except ClientError:
            # Some stores list checksums and do not give them; the digest of ours is left.
            return file
        return replace(file, checksum=_checksum(head))

    with ThreadPoolExecutor(
        CHECKSUM_THREADS, "checksums", initializer=resume, initargs=(current(),)
    ) as threads:
        return list(threads.map(ask, entries, files))


def head_of(client: Any, bucket: str, file: RemoteFile) -> dict[str, Any]:
    """What the store tells of the listed version of an object, checksums too.

    Raises what botocore raises.
    """
    head: dict[str, Any] = client.head_object(
        Bucket=bucket, Key=file.location, ChecksumMode="ENABLED", IfMatch=file.version or "*"
    )
    return head


def proof_in(head: dict[str, Any]) -> Checksum | None:
    """The checksum of the whole object, else its ETag where that is the MD5 of its bytes."""
    return _checksum(head) or _md5(head)


def _md5(head: dict[str, Any]) -> Checksum | None:
    """The ETag of an object that came in one part, and whose key is not the store's client's."""
    etag = str(head.get("ETag", "")).strip('"')
    sealed = str(head.get("ServerSideEncryption", "")).startswith("aws:kms")
    if sealed or head.get("SSECustomerAlgorithm") or not _MD5.fullmatch(etag):
        return None
    return Checksum(ChecksumAlgorithm.MD5, etag)


def _checksum(head: dict[str, Any]) -> Checksum | None:
    if head.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    for name, algorithm in _CHECKSUMS.items():
        if head.get(name):
            try:
                return Checksum(algorithm, base64.b64decode(head[name], validate=True).hex())
            except ValueError:
                return None
    return None
