"""s3://: an object, or all objects below a path, of an S3-compatible store.

The agent's own credentials and endpoint are those that boto3 finds (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, an instance's role, ...); without any, requests are anonymous. Objects are read by
presigned URLs, so that every byte comes by the agent's own transport.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import format_datetime
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore import UNSIGNED
from botocore.awsrequest import AWSResponse
from botocore.client import Config
from botocore.credentials import Credentials as AWSCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from agent.sources.answers import Get, retry_after
from agent.sources.objects import files_of
from agent.sources.pins import holds, is_time, tag_of, version_of
from agent.sources.s3_checksums import head_of, proof_in, with_checksums
from agent.sources.s3_pages import read_quickly
from agent.sources.s3_urls import BucketUrls
from agent.sources.transport import Authorities, Transport, origin_of
from agent.structs.causes import status_failure, unreachable
from agent.structs.credentials import S3_AUTHORITIES
from agent.structs.failures import DownloadError, FailureKind, public_uri
from agent.structs.remote import Checksum, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.sources.bounded_cache import BoundedCache
    from agent.sources.transport import Transports, Trust
    from agent.structs.credentials import Credentials
    from agent.structs.remote import Body

# Error codes whose HTTP status says less than the code does.
_STATUS_OF_CODE = {
    "ExpiredToken": 403,
    "InvalidAccessKeyId": 403,
    "InvalidToken": 403,
    "RequestLimitExceeded": 429,
    "RequestTimeTooSkewed": 403,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 429,
    "Throttling": 429,
    # versitygw, for an access key that nobody has.
    "XAdminUserNotFound": 403,
}
# Objects in a page of a listing.
PAGE = 1000
# Storage classes of objects that must be restored before they are read. (GLACIER_IR is none.)
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
_TRUE = {"1", "true", "yes"}
# In place of a missing key: botocore would look for the agent's own.
_NO_KEY = "none"
# boto3 cannot make clients in several threads at once.
_MAKING = threading.Lock()


@dataclass(frozen=True)
class _Client:
    """A client of one set of credentials, and the transport that trusts their authorities."""

    s3: Any
    transport: Transport
    credentials: Any


@dataclass(frozen=True)
class _S3Model:
    """The listed versions of objects."""

    client: Any
    transport: Transport
    bucket: str
    urls: BucketUrls
    files: tuple[RemoteFile, ...]
    origin: str
    version: str | None = None

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """A range of an object, if it is still the listed version."""
        try:
            url = self.urls.url(file.location)
        except (BotoCoreError, ValueError, RuntimeError) as error:
            raise _failure(error, f"s3://{self.bucket}/{file.location}") from None
        get = Get(
            url=url,
            where=f"s3://{self.bucket}/{file.location}",
            start=start,
            end=end,
            size=file.size,
            version=file.version,
            ranges=file.ranges,
            as_stored=True,
            alone=not file.ranges,
        )
        try:
            return self.transport.read(get)
        except DownloadError as error:
            if error.kind is FailureKind.DENIED:
                with suppress(BotoCoreError, ClientError, ValueError):
                    head = self.client.head_object(Bucket=self.bucket, Key=file.location)
                    _check_archived(head, get.where)
            raise

    def proof(self, file: RemoteFile) -> Checksum | None:
        """The checksum of the whole object, else its ETag where that is the MD5 of its bytes."""
        try:
            head = head_of(self.client, self.bucket, file)
        except (BotoCoreError, ClientError, ValueError) as error:
            raise _failure(error, f"s3://{self.bucket}/{file.location}") from None
        return proof_in(head)


class S3Source:
    """Objects of S3-compatible stores; one client for each set of credentials."""

    def __init__(self, transports: Transports) -> None:
        self._transports = transports
        self._clients: BoundedCache[Credentials, _Client] = transports.new_cache()

    def resolve(self, uri: str, credentials: Credentials, _version: str | None) -> _S3Model:
        """The objects below the URI's path, else the one object with that very key."""
        bucket, path = split(uri)
        try:
            client = self._client(credentials)
            files = files_of(
                path,
                lambda prefix: _files(
                    client.s3, bucket, _objects(client.s3, bucket, prefix, uri), prefix
                ),
                lambda key, prefix: _files(
                    client.s3, bucket, [_object(client.s3, bucket, key, uri)], prefix
                ),
                where=public_uri(uri),
                right=f"s3:ListBucket on the bucket {bucket}",
            )
            urls = BucketUrls(client.s3, bucket, client.credentials)
        except (BotoCoreError, ClientError, ValueError, RecursionError) as error:
            raise _failure(error, uri) from None
        origin = origin_of(client.s3.meta.endpoint_url)
        return _S3Model(client.s3, client.transport, bucket, urls, files, origin)

    def _client(self, credentials: Credentials) -> _Client:
        """The client of these credentials, cached: boto3 takes long to make one."""
        return self._clients.get(credentials, lambda: _make_client(credentials, self._transports))


def _make_client(settings: Credentials, transports: Transports) -> _Client:
    region = settings.get("AWS_REGION") or settings.get("AWS_DEFAULT_REGION") or None
    keys: dict[str, Any] = {}
    if settings.own:
        session = boto3.session.Session(region_name=region)
        signed_with = session.get_credentials()
    else:
        session = _shared_session()
        # The tenant's keys alone: the agent's own must not fill a gap.
        signed_with = AWSCredentials(
            settings.get("AWS_ACCESS_KEY_ID") or _NO_KEY,
            settings.get("AWS_SECRET_ACCESS_KEY") or _NO_KEY,
            settings.get("AWS_SESSION_TOKEN") or None,
        )
        keys = {
            "aws_access_key_id": signed_with.access_key,
            "aws_secret_access_key": signed_with.secret_key,
            "aws_session_token": signed_with.token,
            "region_name": region or "us-east-1",
        }
    virtual = settings.get("S3_USER_VIRTUAL_BUCKET").lower() in _TRUE
    transport = transports.trusting(_trust(settings))
    make = partial(
        session.client,
        "s3",
        endpoint_url=_endpoint(settings),
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 3},
            signature_version=UNSIGNED if _is_anonymous(settings, signed_with) else "s3v4",
            s3={
                "addressing_style": "virtual" if virtual else "auto",
                "use_accelerate_endpoint": settings.get("S3_USE_ACCELERATE").lower() in _TRUE,
            },
            # Not all stores with S3's API have the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **keys,
    )
    with _MAKING:
        client = make()
    client.meta.events.register("before-send.s3", _Sender(transport))
    read_quickly(client)
    return _Client(client, transport, signed_with)


@cache
def _shared_session() -> boto3.session.Session:
    """The one session that makes all clients of tenants' credentials.

    A session for each would take 12 MB, for S3's description alone.
    """
    return boto3.session.Session()


class _Sender:
    """Sends botocore's requests by the transport, since an endpoint is a tenant's input too."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        headers = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        answer = self._transport.call(
            request.method,
            request.url,
            public_uri(request.url),
            headers=headers,
            data=request.body,
            allow_redirects=False,
        )
        return AWSResponse(request.url, answer.status_code, answer.headers, _Raw(answer.content))


@dataclass(frozen=True)
class _Raw:
    """A body with the interface that botocore reads."""

    content: bytes

    def stream(self) -> Iterator[bytes]:
        yield self.content


def _endpoint(settings: Credentials) -> str | None:
    endpoint = settings.get("AWS_ENDPOINT_URL_S3") or settings.get("AWS_ENDPOINT_URL")
    if endpoint:
        return endpoint
    host = settings.get("S3_ENDPOINT")
    if host and "://" not in host:
        secure = settings.get("S3_USE_HTTPS", "1").lower() in _TRUE
        return f"{'https' if secure else 'http'}://{host}"
    if not host and not settings.own:
        # Without this, boto3 would take the endpoint of the agent's environment.
        region = settings.get("AWS_REGION") or settings.get("AWS_DEFAULT_REGION") or "us-east-1"
        return f"https://s3.{region}.amazonaws.com"
    return host or None


def _is_anonymous(settings: Credentials, signed_with: AWSCredentials | None) -> bool:
    if settings.get("awsAnonymousCredential").lower() in _TRUE:
        return True
    return signed_with is None or signed_with.access_key == _NO_KEY


def _trust(settings: Credentials) -> Trust:
    """The authorities that verify the store's certificate."""
    if settings.get("S3_VERIFY_SSL", "1").lower() not in _TRUE:
        return False
    certificates = settings.get(S3_AUTHORITIES)
    if certificates:
        return Authorities(certificates)
    bundle = settings.get("AWS_CA_BUNDLE")
    if bundle and not Path(bundle).exists():
        raise DownloadError(
            FailureKind.TLS,
            f"AWS_CA_BUNDLE names {bundle}, which is not there: mount the certificates there, or "
            "change it",
        )
    return bundle or True


def _files(
    client: Any, bucket: str, entries: Iterable[dict[str, Any]], prefix: str
) -> Iterator[RemoteFile]:
    """The files of entries, a page at a time: entries take many times the memory of files."""
    left = iter(entries)
    while page := list(islice(left, PAGE)):
        listed = [_remote_file(entry, prefix) for entry in page]
        yield from with_checksums(client, bucket, page, listed)


def _objects(client: Any, bucket: str, prefix: str, uri: str) -> Iterator[dict[str, Any]]:
    """The objects whose keys begin with the prefix.

    Raises DownloadError for a listing that these keys may not have, and ClientError otherwise.
    """
    pages = client.get_paginator("list_objects_v2")
    try:
        for page in pages.paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                yield _dated(entry, page)
    except ClientError as error:
        if _code(error) in _STATUS_OF_CODE:
            # Wrong keys cannot read the one object either.
            raise
        raise _failure(error, uri) from None


def _dated(entry: dict[str, Any], page: dict[str, Any]) -> dict[str, Any]:
    """An entry, with the time of the listing by the store's clock if it has no ETag."""
    if tag_of(entry.get("ETag"), entry["Size"]):
        return entry
    return entry | {"Date": page["ResponseMetadata"]["HTTPHeaders"].get("date", "")}


def _object(client: Any, bucket: str, key: str, uri: str) -> dict[str, Any]:
    """One object, as a listing would describe it. Raises DownloadError."""
    try:
        head: dict[str, Any] = client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    except ClientError as error:
        raise _failure(error, uri) from None
    given = [name for name in head if name.startswith("Checksum") and name != "ChecksumType"]
    entry = {**head, "Key": key, "Size": head["ContentLength"], "ChecksumAlgorithm": given}
    return _dated(entry, head)


def _remote_file(entry: dict[str, Any], prefix: str) -> RemoteFile:
    """A listed object, pinned by its ETag, or by its time where it has none.

    Objects without an ETag are those of gateways to file systems, and may change while being sent.
    """
    told = {"ETag": entry.get("ETag", "")}
    if "Date" in entry and "LastModified" in entry:
        told["Last-Modified"] = format_datetime(entry["LastModified"].astimezone(UTC), usegmt=True)
        told["Date"] = entry["Date"]
    version = version_of(told, entry["Size"])
    return RemoteFile(
        path=entry["Key"].removeprefix(prefix),
        location=entry["Key"],
        size=entry["Size"],
        version=version,
        ranges=holds(version, told),
        recheck=version is not None and is_time(version),
    )


def _check_archived(head: dict[str, Any], where: str) -> None:
    """Raises DownloadError (Unsupported) for an object that must be restored before it is read."""
    archived = head.get("StorageClass") in _ARCHIVES or head.get("ArchiveStatus")
    restore = head.get("Restore", "")
    if not archived or 'ongoing-request="false"' in restore:
        return
    told = "and is being restored" if restore else "and cannot be read: restore it"
    raise DownloadError(
        FailureKind.UNSUPPORTED,
        f"{where} is archived ({head.get('ArchiveStatus') or head['StorageClass']}), {told} "
        "(aws s3api restore-object), or copy it to a storage class that is read at once; it is "
        "tried again by itself",
    )


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of a URI, exactly as written."""
    bucket, _, path = uri.partition("://")[2].partition("/")
    return bucket, path


def _code(error: ClientError) -> str:
    code = str(error.response.get("Error", {}).get("Code", ""))
    # The answer to a HEAD has none, and botocore puts the status there.
    return "" if code.isdecimal() else code


def _failure(error: Exception, uri: str) -> DownloadError:
    """The failure for an error of botocore."""
    where = public_uri(uri)
    if isinstance(error, ClientError):
        code = _code(error)
        metadata = error.response.get("ResponseMetadata", {})
        return status_failure(
            _STATUS_OF_CODE.get(code, metadata.get("HTTPStatusCode", 0)),
            where,
            code,
            retry_after=retry_after(
                {k.title(): v for k, v in metadata.get("HTTPHeaders", {}).items()}
            ),
        )
    if isinstance(error, RecursionError):
        # botocore follows every redirect to another region.
        return DownloadError(
            FailureKind.UNSUPPORTED,
            f"{where} redirects in circles: check sourceModelUri and AWS_ENDPOINT_URL",
        )
    if isinstance(error, HTTPClientError | BotoConnectionError):
        # An error of botocore's own request for the credentials of a role.
        return unreachable(error.kwargs.get("error") or error, where)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return DownloadError(
            FailureKind.DENIED,
            f"{where} needs credentials, and the agent's environment has none or only a part: give "
            "the agent AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role",
        )
    return DownloadError(
        FailureKind.INTERNAL,
        f"{where} could not be asked for ({type(error).__name__}): check sourceModelUri and the "
        "agent's AWS settings",
    )
