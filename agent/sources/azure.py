"""azure:// and https:// on Azure's hosts: blobs of a container, by the REST API.

`https://<account>.blob.core.windows.net/<container>/<path>`, percent-encoded as URLs are; azure://
means the same. A shared access signature may stand in the query. Settings, beside those of
azure_access: AZURE_STORAGE_BLOB_ENDPOINT names another server for all accounts, such as an emulator
(`http://127.0.0.1:10000/devstoreaccount1`).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree as ET

from agent.sources.answers import Get, answered, code_of
from agent.sources.azure_access import access_of, given
from agent.sources.azure_uris import BLOB_HOST
from agent.sources.objects import files_of
from agent.sources.transport import IDENTITY, origin_of
from agent.structs.failures import DownloadError, FailureKind, public_uri
from agent.structs.remote import Checksum, ChecksumAlgorithm, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from xml.etree.ElementTree import Element

    import requests

    from agent.sources.azure_access import AzureAccess
    from agent.sources.bounded_cache import BoundedCache
    from agent.sources.transport import Transport, Transports
    from agent.structs.credentials import Credentials
    from agent.structs.remote import Body

# A version of the REST API that other clouds and emulators have too.
API_VERSION = "2021-12-02"
# Blobs in a page of a listing: with all their metadata far below the bound of an answer.
PAGE = 1000

# Error codes whose HTTP status says less than the code does.
_STATUS_OF_CODE = {
    "InvalidAuthenticationInfo": 401,
    "NoAuthenticationInformation": 401,
    "OperationTimedOut": 503,
    "PublicAccessNotPermitted": 403,
}
_HEADERS = {"x-ms-version": API_VERSION}


@dataclass(frozen=True)
class BlobPlace:
    """The container and the path of a URI."""

    host: str
    container: str
    path: str
    signature: str
    # The URI of the container, for messages.
    root: str

    @property
    def account(self) -> str:
        """The storage account."""
        return self.host.partition(".")[0]


@dataclass(frozen=True, slots=True)
class _Blob:
    """One blob as the server describes it."""

    file: RemoteFile
    is_folder: bool = False
    is_archived: bool = False


@dataclass
class _Model:
    """The listed versions of blobs."""

    container: _Container
    files: tuple[RemoteFile, ...]
    origin: str
    version: str | None = None

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """A range of a blob, if it still has the listed ETag."""
        return self.container.read(file, start, end)


class AzureSource:
    """Blobs of Azure's storage accounts, and of servers with the same API."""

    def __init__(self, transports: Transports) -> None:
        self._transport = transports.trusting()
        self._accesses: BoundedCache[tuple[Credentials, str], AzureAccess] = transports.new_cache()

    def resolve(
        self,
        uri: str,
        credentials: Credentials,
        version: str | None,  # noqa: ARG002
    ) -> _Model:
        """The blobs below the URI's path, else the one blob with that very name.

        The folders of hierarchical accounts are no files either.
        """
        where = public_uri(uri)
        place = parse(uri)
        container = _Container(
            endpoint=endpoint(credentials, place.host),
            place=place,
            access=self._access(place, credentials),
            transport=self._transport,
        )
        archived: list[str] = []

        def taken(blobs: Iterable[_Blob], prefix: str) -> Iterator[RemoteFile]:
            for blob in blobs:
                if blob.is_folder:
                    continue
                if blob.is_archived:
                    archived.append(blob.file.location)
                yield replace(blob.file, path=blob.file.location.removeprefix(prefix))

        try:
            files = files_of(
                place.path,
                lambda prefix: taken(container.blobs(prefix, where), prefix),
                lambda name, prefix: taken([container.blob(name, where)], prefix),
                where=where,
                right="the right to list (l) of a signature, or as Storage Blob Data Reader",
                what="blob",
            )
        except (ET.ParseError, ValueError, AttributeError):
            raise DownloadError(
                FailureKind.INTERNAL,
                f"{where} is not answered as Azure's storage does: check "
                "AZURE_STORAGE_BLOB_ENDPOINT, and the proxies between",
            ) from None
        if archived:
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"{place.root}/{archived[0]} is in the archive tier and cannot be read: move it to "
                "the hot or the cool tier",
            )
        return _Model(container, files, origin_of(container.endpoint))

    def _access(self, place: BlobPlace, credentials: Credentials) -> AzureAccess:
        """The permission for requests, cached because it may hold an access token."""
        if place.signature:
            return given(place.signature)
        return self._accesses.get(
            (credentials, place.host),
            lambda: access_of(credentials, self._transport, place.host),
        )


@dataclass(frozen=True)
class _Container:
    """Requests to one container."""

    endpoint: str
    place: BlobPlace
    access: AzureAccess
    transport: Transport

    def blobs(self, prefix: str, where: str) -> Iterator[_Blob]:
        """The blobs whose names begin with the prefix."""
        marker = ""
        while True:
            parameters = {
                "restype": "container",
                "comp": "list",
                "prefix": prefix,
                # The metadata mark the folders of hierarchical accounts.
                "include": "metadata",
                "maxresults": str(PAGE),
                **({"marker": marker} if marker else {}),
            }
            answer = self._ask("GET", self._url("", parameters), where)
            # Expat itself bounds what entities may expand to.
            page = ET.fromstring(answer.content)  # noqa: S314
            yield from map(listed, page.iterfind("./Blobs/Blob"))
            following = page.findtext("NextMarker") or ""
            if following in {"", marker}:
                return
            marker = following

    def blob(self, name: str, where: str) -> _Blob:
        """One blob."""
        return described(name, self._ask("HEAD", self._url(name), where).headers)

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """A range of the listed version of a blob."""
        where = f"{self.place.root}/{file.location}"
        get = Get(
            url=self._url(file.location),
            where=where,
            start=start,
            end=end,
            size=file.size,
            version=file.version,
            headers=_HEADERS | self.access.headers(where),
            as_stored=True,
            ranges=file.ranges,
            alone=not file.ranges,
        )
        try:
            return self.transport.read(get)
        except DownloadError as error:
            self._after(error)
            raise

    def _ask(self, method: str, url: str, where: str) -> requests.Response:
        headers = IDENTITY | _HEADERS | self.access.headers(where)
        answer = self.transport.call(method, url, where, headers=headers)
        if answer.status_code >= 400:
            error = _refusal(answer, where, anonymous=self.access.anonymous)
            self._after(error)
            raise error
        return answer

    def _url(self, name: str, parameters: Mapping[str, str] | None = None) -> str:
        place = self.place
        path = quote(place.container, safe="$") + (f"/{quote(name)}" if name else "")
        queries = (
            urlencode(parameters or {}, quote_via=quote),
            self.access.query(place.account, place.container),
        )
        query = "&".join(one for one in queries if one)
        return f"{self.endpoint}/{path}" + (f"?{query}" if query else "")

    def _after(self, error: DownloadError) -> None:
        if error.kind is FailureKind.DENIED:
            self.access.refused()


def parse(uri: str) -> BlobPlace:
    """The place that a URI names. Raises DownloadError (Unsupported)."""
    where = public_uri(uri)
    try:
        parts = urlsplit(uri)
        host = (parts.hostname or "").lower()
    except ValueError:
        parts, host = urlsplit(""), ""
    container, _, path = parts.path.removeprefix("/").partition("/")
    if not BLOB_HOST.fullmatch(host) or not container:
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{where} names no container of Azure's: give a sourceModelUri such as "
            "https://account.blob.core.windows.net/container/path",
        )
    if parts.query and "sig" not in parse_qs(parts.query):
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{where} has a query that is no shared access signature: leave it out, or give the "
            "whole SAS token",
        )
    root = f"{parts.scheme}://{host}/{container}"
    return BlobPlace(host, unquote(container), unquote(path), parts.query, root)


def endpoint(settings: Credentials, host: str) -> str:
    """The URL that a container's name follows."""
    return settings.get("AZURE_STORAGE_BLOB_ENDPOINT").rstrip("/") or f"https://{host}"


def listed(entry: Element) -> _Blob:
    """A blob of a listing."""
    given = entry.find("Name")
    name = "" if given is None else given.text or ""
    if given is not None and given.get("Encoded") == "true":
        # The name has characters that XML cannot have.
        name = unquote(name)
    return _Blob(
        RemoteFile(
            path=name,
            location=name,
            size=int(entry.findtext("Properties/Content-Length") or ""),
            version=_etag(entry.findtext("Properties/Etag")),
            checksum=_md5(entry.findtext("Properties/Content-MD5")),
        ),
        is_folder=name.endswith("/")
        or entry.findtext("Properties/ResourceType") == "directory"
        or any(_marks_folder(one.tag, one.text) for one in entry.iterfind("Metadata/*")),
        is_archived=entry.findtext("Properties/AccessTier") == "Archive",
    )


def described(name: str, headers: Mapping[str, str]) -> _Blob:
    """A blob as the headers of an answer describe it."""
    return _Blob(
        RemoteFile(
            path=name,
            location=name,
            size=int(headers.get("Content-Length", "")),
            version=_etag(headers.get("ETag")),
            checksum=_md5(headers.get("Content-MD5")),
        ),
        is_folder=headers.get("x-ms-resource-type") == "directory"
        or _marks_folder("hdi_isfolder", headers.get("x-ms-meta-hdi_isfolder")),
        is_archived=headers.get("x-ms-access-tier") == "Archive",
    )


def _marks_folder(name: str, value: str | None) -> bool:
    """Whether metadata mark a folder. Tools differ in upper and lower case."""
    return name.lower() == "hdi_isfolder" and (value or "").strip().lower() == "true"


def _etag(value: str | None) -> str | None:
    """An ETag with quotes, as in the header: listings leave them out."""
    return f'"{value.strip(chr(34))}"' if value else None


def _md5(value: str | None) -> Checksum | None:
    return Checksum(ChecksumAlgorithm.MD5, base64.b64decode(value).hex()) if value else None


def _refusal(answer: requests.Response, where: str, *, anonymous: bool) -> DownloadError:
    """The failure for an answer of 400 or above."""
    code = code_of(answer.headers.get("x-ms-error-code"))
    status = _STATUS_OF_CODE.get(code)
    if anonymous and code == "ResourceNotFound":
        # Azure answers that a private container does not exist.
        status = 403
    return answered(answer, where, code, status=status, anonymous=anonymous)
