"""Pages of listings: what is read of them is what botocore itself reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.awsrequest import AWSResponse
from botocore.client import Config
from botocore.exceptions import ClientError

from agent.sources.s3_pages import read_quickly

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = {"Key", "Size", "ETag", "LastModified", "ChecksumAlgorithm", "ChecksumType"}
AMAZON = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
OTHER = """<Owner><ID>0</ID><DisplayName>x</DisplayName></Owner><New><Key>n</Key></New>
<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus>"""
PREFIXED = """<a:ListBucketResult xmlns:a="http://s3.amazonaws.com/doc/2006-03-01/"><a:Contents>
<a:Key>k</a:Key><a:Size>7</a:Size></a:Contents><a:IsTruncated>false</a:IsTruncated>
</a:ListBucketResult>"""


class Raw:
    def __init__(self, body: str) -> None:
        self.body = body

    def stream(self) -> Iterator[bytes]:
        yield self.body.encode()


def listed(body: str, status: int = 200, *, quickly: bool) -> dict[str, Any]:
    """The page as a client reads it."""
    session = boto3.session.Session()
    config = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1})
    client = session.client("s3", region_name="us-east-1", config=config)

    def answer(**_: Any) -> AWSResponse:
        return AWSResponse("http://store/", status, {"date": "now"}, Raw(body))

    client.meta.events.register("before-send.s3", answer)
    if quickly:
        read_quickly(client)
    page: dict[str, Any] = client.list_objects_v2(Bucket="bucket")
    page["Contents"] = [
        {name: value for name, value in entry.items() if name in NEEDED}
        for entry in page.get("Contents", ())
    ]
    return page


def page_of(*objects: str, namespace: str = AMAZON, more: str = "") -> str:
    contents = "".join(f"<Contents>{one}</Contents>\n" for one in objects)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<ListBucketResult {namespace}><Name>bucket</Name><IsTruncated>true</IsTruncated>"
        f"<NextContinuationToken>a/b+c&amp;==</NextContinuationToken>{contents}<KeyCount>1</KeyCount>"
        f"{more}</ListBucketResult>"
    )


def an_object(
    key: str = "m/w", size: str = "3", modified: str = "2026-11-24T12:00:00.000Z", more: str = OTHER
) -> str:
    return (
        f"<Key>{key}</Key><LastModified>{modified}</LastModified><ETag>&quot;e&#34;</ETag>"
        f"<Size>{size}</Size>{more}"
    )


ONE_SUM = "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>COMPOSITE</ChecksumType>"
TWO_SUMS = f"<ChecksumAlgorithm>SHA1</ChecksumAlgorithm>{ONE_SUM}"
TIMES = (
    "2026-11-24T12:00:00Z",
    "2026-11-24T12:00:00.123456789Z",
    "2026-11-24T14:00:00+02:00",
    "2026-11-24T12:00:00",
    "20261124T120000Z",
    "Tue, 24 Nov 2026 12:00:00 GMT",
    "1795521600",
)


@pytest.mark.parametrize(
    "body",
    [
        page_of(an_object()),
        page_of(an_object("m/1"), an_object("m/2"), more="<MaxKeys>1000</MaxKeys>"),
        page_of(an_object(), namespace=""),
        page_of(an_object(), namespace='xmlns="https://elsewhere.example.com/s3"'),
        page_of(*(an_object(modified=time) for time in TIMES)),
        page_of(an_object(more=ONE_SUM), an_object(more=TWO_SUMS)),
        page_of("<Key>m/only</Key><Size>0</Size><ETag/>"),
        page_of(an_object("m/ü %2B+&lt;&amp;&#9;"), an_object(" m/ ")),
        page_of(
            an_object("m/%C3%BC+a%2Bb%25"),
            an_object("m/a%0Ab"),
            more="<EncodingType>url</EncodingType><Prefix>m%2F</Prefix>",
        ),
        page_of(an_object(), more="<CommonPrefixes><Prefix>m/x/</Prefix></CommonPrefixes>"),
        page_of(),
        PREFIXED,
        "",
    ],
)
def test_a_page_is_what_botocore_reads(body: str) -> None:
    assert listed(body, quickly=True) == listed(body, quickly=False)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("<Error><Code>SlowDown</Code><Message>m</Message></Error>", 200, ClientError),
        ("<Error><Code>NoSuchBucket</Code><Message>m</Message></Error>", 404, ClientError),
        (page_of(an_object()), 503, ClientError),
        (page_of(an_object())[:-20], 200, ClientError),
        ("no page", 200, ClientError),
        (page_of(an_object(size="many")), 200, ValueError),
        (page_of(an_object(modified="long ago")), 200, ValueError),
    ],
)
def test_what_is_no_page_is_what_it_is_to_botocore(
    body: str, status: int, error: type[Exception]
) -> None:
    with pytest.raises(error) as theirs:
        listed(body, status, quickly=False)
    with pytest.raises(error) as ours:
        listed(body, status, quickly=True)
    # Each client has classes of its own.
    assert repr(ours.value) == repr(theirs.value)
    if isinstance(ours.value, ClientError) and isinstance(theirs.value, ClientError):
        assert ours.value.response == theirs.value.response


def test_botocore_has_no_object_left_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(value: Any) -> Any:
        raise AssertionError(value)

    # botocore's parser cannot read a time any more: the objects are taken from it before.
    monkeypatch.setattr("botocore.parsers.DEFAULT_TIMESTAMP_PARSER", refuse)
    with pytest.raises(AssertionError):
        listed(page_of(an_object()), quickly=False)
    assert listed(page_of(an_object()), quickly=True)["Contents"][0]["Key"] == "m/w"
