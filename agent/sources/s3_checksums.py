"""Checksums that an S3-compatible store has of whole objects."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from agent.sources.pins import condition
from agent.sources.waits import current, resume
from agent.structs.remote import Checksum, ChecksumAlgorithm

if TYPE_CHECKING:
    from agent.structs.remote import RemoteFile

# Checksums cost a request for each object: not worth it for small ones.
CHECKSUM_BYTES = 8 << 20
CHECKSUM_THREADS = 16
_MD5 = re.compile("[0-9a-f]{32}")
# The names of full-object checksums in answers, the cheapest first.
_CHECKSUMS = {
    "ChecksumCRC64NVME": ChecksumAlgorithm.CRC64NVME,
    "ChecksumCRC32C": ChecksumAlgorithm.CRC32C,
    "ChecksumXXHASH3": ChecksumAlgorithm.XXHASH3,
    "ChecksumXXHASH128": ChecksumAlgorithm.XXHASH128,
    "ChecksumXXHASH64": ChecksumAlgorithm.XXHASH64,
    "ChecksumCRC32": ChecksumAlgorithm.CRC32,
    "ChecksumSHA256": ChecksumAlgorithm.SHA256,
    "ChecksumSHA512": ChecksumAlgorithm.SHA512,
    "ChecksumSHA1": ChecksumAlgorithm.SHA1,
    "ChecksumMD5": ChecksumAlgorithm.MD5,
}


def with_checksums(
    client: Any, bucket: str, entries: list[dict[str, Any]], files: list[RemoteFile]
) -> list[RemoteFile]:
    """The files with the checksums of whole objects, where the store lists that it has them.

    A multi-part upload may have checksums of its parts only, which are not those of ranges.
    """
    unlisted = _has_unlisted(client, bucket, entries, files)
    asked = [
        number
        for number, entry in enumerate(entries)
        if entry["Size"] >= CHECKSUM_BYTES
        and entry.get("ChecksumType") != "COMPOSITE"
        and (unlisted or _lists_one(entry))
    ]
    if not asked:
        return files
    found = list(files)
    with ThreadPoolExecutor(
        CHECKSUM_THREADS, "checksums", initializer=resume, initargs=(current(),)
    ) as threads:
        answers = threads.map(lambda number: _asked(client, bucket, files[number]), asked)
        for number, file in zip(asked, answers, strict=True):
            found[number] = file
    return found


def _lists_one(entry: dict[str, Any]) -> bool:
    return bool(entry.get("ChecksumAlgorithm"))


def _has_unlisted(
    client: Any, bucket: str, entries: list[dict[str, Any]], files: list[RemoteFile]
) -> bool:
    """Whether the store has checksums that it does not list, judged by its first large object."""
    for entry, file in zip(entries, files, strict=True):
        if entry["Size"] >= CHECKSUM_BYTES:
            return not _lists_one(entry) and _asked(client, bucket, file).checksum is not None
    return False


def _asked(client: Any, bucket: str, file: RemoteFile) -> RemoteFile:
    try:
        head = head_of(client, bucket, file)
    except ClientError:
        # Some stores list checksums and refuse to give them: the file's own digest remains.
        return file
    return replace(file, checksum=_checksum(head))


def head_of(client: Any, bucket: str, file: RemoteFile) -> dict[str, Any]:
    """The description of the listed version of an object, with its checksums.

    Raises what botocore raises.
    """
    version = condition(file.version).get("If-Match", "") if file.version else ""
    head: dict[str, Any] = client.head_object(
        Bucket=bucket,
        Key=file.location,
        ChecksumMode="ENABLED",
        IfMatch=version if version.startswith('"') else "*",
    )
    return head


def proof_in(head: dict[str, Any]) -> Checksum | None:
    """The checksum of the whole object, else its ETag where that is the MD5 of its bytes."""
    return _checksum(head) or _md5(head)


def _md5(head: dict[str, Any]) -> Checksum | None:
    """The ETag of an object of one part and without a customer's key, which is its MD5."""
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
