"""Presigned URLs of the objects of one bucket.

botocore makes each of them from the rules of all its regions and endpoints, in more time than the
rest of a small file takes. Here it makes the first; the others differ from that in the key, and so
in the signature (AWS Signature Version 4, in the query), which is computed as AWS documents it. A
first one that comes out another way leaves all of them to botocore.
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

# How long a signature lasts: longer than any range takes, and each range has its own.
SIGNED_SECONDS = 3600

# A key that needs no quoting, and so ends the path of its URL.
_EXAMPLE = "localmodel"
# What of a key stays as it is in a URL: RFC 3986's unreserved characters, and the slash.
_SAFE = "/~"
_SERVICE = "s3"
_TERMINATOR = "aws4_request"


@dataclass(frozen=True)
class Place:
    """What all URLs of a bucket have in common. `path` is that before the key, quoted."""

    scheme: str
    host: str
    path: str
    region: str


class BucketUrls:
    """Makes URLs for GETs. `client` is a client of boto3, `credentials` are None for nobody's.

    `signs` is whether it does so itself.
    """

    def __init__(self, client: Any, bucket: str, credentials: Credentials | None) -> None:
        self._client = client
        self._bucket = bucket
        self._credentials = credentials
        example = self._sign(_EXAMPLE)
        parts = urlsplit(example)
        query = dict(parse_qsl(parts.query))
        # <access key>/<day>/<region>/s3/aws4_request
        region = query.get("X-Amz-Credential", "///").split("/")[-3]
        self.place = Place(parts.scheme, parts.netloc, parts.path.removesuffix(_EXAMPLE), region)
        self._anonymous = not query
        self.signs = False
        if credentials is not None and "X-Amz-Date" in query:
            frozen = credentials.get_frozen_credentials()
            ours = sign(self.place, _EXAMPLE, frozen, query["X-Amz-Date"])
            self.signs = dict(parse_qsl(urlsplit(ours).query)) == query

    def url(self, key: str) -> str:
        """A URL for this key. Raises BotoCoreError."""
        if self._anonymous:
            place = self.place
            return f"{place.scheme}://{place.host}{place.path}{quote(key, safe=_SAFE)}"
        if not self.signs or self._credentials is None:
            return self._sign(key)
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        # Those of a role change while it runs.
        return sign(self.place, key, self._credentials.get_frozen_credentials(), now)

    def _sign(self, key: str) -> str:
        signed: str = self._client.generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=SIGNED_SECONDS
        )
        return signed


def sign(place: Place, key: str, credentials: ReadOnlyCredentials, now: str) -> str:
    """The URL of a key, signed at a time such as 20261124T120000Z.

    As https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html has it.
    """
    scope = f"{now[:8]}/{place.region}/{_SERVICE}/{_TERMINATOR}"
    path = place.path + quote(key, safe=_SAFE)
    query = (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256"
        f"&X-Amz-Credential={quote(f'{credentials.access_key}/{scope}', safe='')}"
        f"&X-Amz-Date={now}&X-Amz-Expires={SIGNED_SECONDS}"
    )
    if credentials.token:
        query += f"&X-Amz-Security-Token={quote(credentials.token, safe='')}"
    query += "&X-Amz-SignedHeaders=host"
    request = f"GET\n{path}\n{query}\nhost:{place.host}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(request.encode()).hexdigest()
    secret = f"AWS4{credentials.secret_key}".encode()
    for part in (now[:8], place.region, _SERVICE, _TERMINATOR):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signed = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
    signature = hmac.digest(secret, signed.encode(), "sha256").hex()
    return f"{place.scheme}://{place.host}{path}?{query}&X-Amz-Signature={signature}"
