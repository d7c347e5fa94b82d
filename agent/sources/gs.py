"""gs://: objects of Google Cloud Storage, by its JSON API.

Settings: STORAGE_EMULATOR_HOST names another server, as for Google's libraries. Credentials are the
content of a key file (GCS_KEY_FILE); the agent's own are Google's application default credentials.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agent.sources.answers import Get, answered, changed, code_of
from agent.sources.google_token import named_token, own_token
from agent.sources.objects import files_of
from agent.sources.transport import origin_of
from agent.structs.failures import DownloadError, FailureKind, public_uri
from agent.structs.remote import Checksum, ChecksumAlgorithm, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import requests

    from agent.sources.bounded_cache import BoundedCache
    from agent.sources.google_token import Token
    from agent.sources.transport import Transport, Transports
    from agent.structs.credentials import Credentials
    from agent.structs.remote import Body

ENDPOINT = "https://storage.googleapis.com"
PAGE = 1000

_FIELDS = "name,generation,size,crc32c,md5Hash,contentEncoding,cacheControl"
# Reasons that say more than the HTTP status 403 does.
_THROTTLED = {"rateLimitExceeded", "userRateLimitExceeded"}


@dataclass
class _Model:
    """The listed generations of objects."""

    client: _Client
    bucket: str
    files: tuple[RemoteFile, ...]
    origin: str
    # The names of objects that are labelled gzip and are read as they are stored.
    packed: frozenset[str]
    version: str | None = None

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """A range of the listed generation of an object."""
        packed = file.location in self.packed
        return self.client.read(self.bucket, file, start, end, packed=packed)


class GoogleStorageSource:
    """Objects of Google Cloud Storage; one client for each set of credentials."""

    def __init__(self, transports: Transports) -> None:
        self._transport = transports.trusting()
        self._clients: BoundedCache[Credentials, _Client] = transports.new_cache()

    def resolve(
        self,
        uri: str,
        credentials: Credentials,
        version: str | None,  # noqa: ARG002
    ) -> _Model:
        """The objects below the URI's path, else the one object with that very name."""
        where = public_uri(uri)
        bucket, path = split(uri)
        client = self._client(credentials, where)
        packed: set[str] = set()

        def taken(items: Iterable[Mapping[str, Any]], prefix: str) -> Iterator[RemoteFile]:
            for item in items:
                if _stays_packed(item):
                    packed.add(str(item["name"]))
                yield remote_file(item, prefix)

        try:
            files = files_of(
                path,
                lambda prefix: taken(client.items(bucket, prefix, where), prefix),
                lambda name, prefix: taken([client.item(bucket, name, where)], prefix),
                where=where,
                right="storage.objects.list, as of Storage Object Viewer",
            )
        except (KeyError, ValueError, TypeError, AttributeError):
            raise DownloadError(
                FailureKind.INTERNAL,
                f"{where} is not answered as Google Cloud Storage does: check "
                "STORAGE_EMULATOR_HOST, and the proxies between",
            ) from None
        return _Model(client, bucket, files, origin_of(client.endpoint), frozenset(packed))

    def _client(self, credentials: Credentials, where: str) -> _Client:
        """The client of these credentials, which holds their access token."""

        def make() -> _Client:
            if credentials.own:
                token = own_token(credentials)
            else:
                token = named_token(credentials, self._transport, where)
            return _Client(endpoint(credentials), self._transport, token)

        return self._clients.get(credentials, make)


class _Client:
    """Requests to one server with one set of credentials."""

    def __init__(self, server: str, transport: Transport, token: Token | None) -> None:
        self.endpoint = server
        self._transport = transport
        self._token = token

    def items(self, bucket: str, prefix: str, where: str) -> Iterator[dict[str, Any]]:
        """The objects whose names begin with the prefix."""
        parameters = {
            "prefix": prefix,
            "maxResults": str(PAGE),
            "fields": f"nextPageToken,items({_FIELDS})",
        }
        while True:
            page = self._ask(_path(bucket), parameters, where)
            yield from page.get("items", ())
            following = page.get("nextPageToken")
            if not following or following == parameters.get("pageToken"):
                return
            parameters["pageToken"] = following

    def item(self, bucket: str, name: str, where: str) -> dict[str, Any]:
        """One object."""
        return self._ask(_path(bucket, name), {"fields": _FIELDS}, where)

    def read(
        self, bucket: str, file: RemoteFile, start: int, end: int | None, *, packed: bool
    ) -> Body:
        """A range of the pinned generation of an object."""
        where = f"gs://{bucket}/{file.location}"
        get = Get(
            url=f"{self.endpoint}{_path(bucket, file.location)}"
            f"?alt=media&generation={quote(file.version or '', safe='')}",
            where=where,
            start=start,
            end=end,
            size=file.size,
            # Google and emulators unpack gzip only for a client that does not accept it.
            headers=self._headers(where) | ({"Accept-Encoding": "gzip"} if packed else {}),
            ranges=file.ranges,
            as_stored=True,
        )
        try:
            return self._transport.read(get)
        except DownloadError as error:
            if error.kind is FailureKind.NOT_FOUND:
                # The object was listed: another generation has replaced it.
                raise changed(where) from None
            self._after(error)
            raise

    def _ask(self, path: str, parameters: Mapping[str, str], where: str) -> dict[str, Any]:
        answer = self._transport.call(
            "GET",
            self.endpoint + path,
            where,
            params=parameters,
            headers=self._headers(where),
        )
        if answer.status_code >= 400:
            error = _refusal(answer, where, anonymous=self._token is None)
            self._after(error)
            raise error
        found: dict[str, Any] = answer.json()
        return found

    def _headers(self, where: str) -> dict[str, str]:
        return self._token.headers(where) if self._token else {}

    def _after(self, error: DownloadError) -> None:
        if self._token and error.kind is FailureKind.DENIED:
            self._token.forget()


def remote_file(item: Mapping[str, Any], prefix: str) -> RemoteFile:
    """A file of the API's description of an object."""
    name = str(item["name"])
    generation = str(item["generation"])
    if _is_gzip(item) and not _stays_packed(item):
        # The server unpacks the object, and gives neither size nor checksum of what it then sends.
        return RemoteFile(name.removeprefix(prefix), name, None, generation, ranges=False)
    checksum = _checksum(item)
    return RemoteFile(
        path=name.removeprefix(prefix),
        location=name,
        size=int(item["size"]),
        version=generation,
        checksum=checksum,
        # Some emulators ignore the generation, and only a checksum shows that.
        ranges=checksum is not None,
    )


def _is_gzip(item: Mapping[str, Any]) -> bool:
    return str(item.get("contentEncoding", "")).strip().lower() == "gzip"


def _stays_packed(item: Mapping[str, Any]) -> bool:
    """Whether the server never unpacks the object: cloud.google.com/storage/docs/transcoding."""
    return _is_gzip(item) and "no-transform" in str(item.get("cacheControl", "")).lower()


def _checksum(item: Mapping[str, Any]) -> Checksum | None:
    for field, algorithm in (
        ("crc32c", ChecksumAlgorithm.CRC32C),
        ("md5Hash", ChecksumAlgorithm.MD5),
    ):
        if item.get(field):
            return Checksum(algorithm, base64.b64decode(item[field], validate=True).hex())
    return None


def split(uri: str) -> tuple[str, str]:
    """Bucket and name of a URI, exactly as written. Raises DownloadError (Unsupported)."""
    bucket, _, path = uri.partition("://")[2].partition("/")
    if not bucket:
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{public_uri(uri)} names no bucket: give a sourceModelUri such as gs://bucket/path",
        )
    return bucket, path


def endpoint(settings: Credentials) -> str:
    """The URL of the server."""
    host = settings.get("STORAGE_EMULATOR_HOST").rstrip("/")
    if not host:
        return ENDPOINT
    return host if "://" in host else f"http://{host}"


def _path(bucket: str, name: str | None = None) -> str:
    path = f"/storage/v1/b/{quote(bucket, safe='')}/o"
    return path if name is None else f"{path}/{quote(name, safe='')}"


def _refusal(answer: requests.Response, where: str, *, anonymous: bool) -> DownloadError:
    """The failure for an answer of 400 or above."""
    try:
        reason = answer.json()["error"]["errors"][0]["reason"]
    except (ValueError, KeyError, IndexError, TypeError):
        reason = ""
    reason = code_of(reason)
    status = 429 if reason in _THROTTLED else None
    return answered(answer, where, reason, status=status, anonymous=anonymous)
