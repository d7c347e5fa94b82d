"""Presigned URLs of the objects of one bucket.

botocore makes each URL from the rules of all its regions and endpoints, in more time than the rest
of a small file takes. So botocore makes only the first URL of a bucket. The others differ from it
in the key and the signature (AWS Signature Version 4, in the query), which is computed here as AWS
documents it. Where this module does not come to the same first URL, botocore makes all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

if TYPE_CHECKING:
    from botocore.credentials import Credentials, ReadOnlyCredentials

# How long a signature lasts: longer than any range takes. Each range has its own.
SIGNED_SECONDS = 3600

# The key of the first URL; without characters to quote, so that it ends the path of the URL.
_EXAMPLE = "localmodel"
# The characters of a key that are not quoted: RFC 3986's unreserved ones, and the slash.
_SAFE = "/~"
_SERVICE = "s3"
_TERMINATOR = "aws4_request"


@dataclass(frozen=True)
class BucketPlace:
    """The common parts of a bucket's URLs. `path` is the quoted path before the key."""

    scheme: str
    host: str
    path: str
    region: str


class BucketUrls:
    """Makes URLs for GET requests. `client` is boto3's; without `credentials` nothing is signed."""

    def __init__(self, client: Any, bucket: str, credentials: Credentials | None) -> None:
        self._client = client
        self._bucket = bucket
        self._credentials = credentials
        example = self._sign(_EXAMPLE)
        parts = urlsplit(example)
        query = dict(parse_qsl(parts.query))
        # <access key>/<day>/<region>/s3/aws4_request
        region = query.get("X-Amz-Credential", "///").split("/")[-3]
        self.place = BucketPlace(
            parts.scheme, parts.netloc, parts.path.removesuffix(_EXAMPLE), region
        )
        self._anonymous = not query
        self._signer: Signer | None = None
        if credentials is not None and "X-Amz-Date" in query:
            frozen = credentials.get_frozen_credentials()
            signer = Signer(self.place, frozen, query["X-Amz-Date"])
            if dict(parse_qsl(urlsplit(signer.url(_EXAMPLE)).query)) == query:
                self._signer = signer

    def url(self, key: str) -> str:
        """A URL for this key. Raises BotoCoreError."""
        if self._anonymous:
            place = self.place
            return f"{place.scheme}://{place.host}{place.path}{quote(key, safe=_SAFE)}"
        signer = self._signer
        if signer is None or self._credentials is None:
            return self._sign(key)
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        # The credentials of a role change while the agent runs.
        credentials = self._credentials.get_frozen_credentials()
        if (signer.now, signer.credentials) != (now, credentials):
            signer = self._signer = Signer(self.place, credentials, now)
        return signer.url(key)

    def _sign(self, key: str) -> str:
        signed: str = self._client.generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=SIGNED_SECONDS
        )
        return signed


class Signer:
    """Signs the URLs of a bucket at one time such as 20261124T120000Z.

    As https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html has it. The URLs
    of a second share all but the path and the signature.
    """

    def __init__(self, place: BucketPlace, credentials: ReadOnlyCredentials, now: str) -> None:
        self.now = now
        self.credentials = credentials
        self._place = place
        self._scope = f"{now[:8]}/{place.region}/{_SERVICE}/{_TERMINATOR}"
        self._query = (
            "X-Amz-Algorithm=AWS4-HMAC-SHA256"
            f"&X-Amz-Credential={quote(f'{credentials.access_key}/{self._scope}', safe='')}"
            f"&X-Amz-Date={now}&X-Amz-Expires={SIGNED_SECONDS}"
        )
        if credentials.token:
            self._query += f"&X-Amz-Security-Token={quote(credentials.token, safe='')}"
        self._query += "&X-Amz-SignedHeaders=host"
        self._key = f"AWS4{credentials.secret_key}".encode()
        for part in (now[:8], place.region, _SERVICE, _TERMINATOR):
            self._key = hmac.digest(self._key, part.encode(), "sha256")

    def url(self, key: str) -> str:
        """The URL of an object."""
        place = self._place
        path = place.path + quote(key, safe=_SAFE)
        request = f"GET\n{path}\n{self._query}\nhost:{place.host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signed = f"AWS4-HMAC-SHA256\n{self.now}\n{self._scope}\n{digest}"
        signature = hmac.digest(self._key, signed.encode(), "sha256").hex()
        return f"{place.scheme}://{place.host}{path}?{self._query}&X-Amz-Signature={signature}"
