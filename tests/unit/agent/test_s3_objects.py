"""What an S3 store tells of an object beside its bytes: checksums, and that it is archived."""

from __future__ import annotations

import base64
import hashlib
import random
import zlib
from typing import TYPE_CHECKING

import pytest
from awscrt.checksums import XXHash, crc32c, crc64nvme

from agent.structs.failures import FailureKind
from tests.unit.agent.helpers import set_aws
from tests.unit.agent.hostile import Attempt
from tests.unit.agent.servers import Buckets, Handler, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.disk.store import Store
    from agent.structs.failures import DownloadError

# More than objects have whose checksums are not asked for.
pytestmark = pytest.mark.usefixtures("no_waiting")

DATA = random.Random(9).randbytes(9 << 20)
DAMAGED = DATA[:5_000_000] + bytes([DATA[5_000_000] ^ 1]) + DATA[5_000_001:]

ALGORITHMS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: crc64nvme(data).to_bytes(8, "big"),
    "MD5": lambda data: hashlib.md5(data).digest(),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
    "SHA512": lambda data: hashlib.sha512(data).digest(),
    "XXHASH64": XXHash.compute_xxhash64,
    "XXHASH3": XXHash.compute_xxhash3_64,
    "XXHASH128": XXHash.compute_xxhash3_128,
}


class Silent(Buckets):
    """Gives checksums and does not list them."""

    def _entry(self, key: str, data: bytes) -> str:
        checksums, self.checksums = self.checksums, {}
        try:
            return super()._entry(key, data)
        finally:
            self.checksums = checksums


class Archive(Buckets):
    """Its objects are archived, as HEAD tells with `told`, and reads are refused."""

    told: dict[str, str]

    def _described(self, key: str, data: bytes) -> dict[str, str]:
        return super()._described(key, data) | self.told


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_aws(monkeypatch, "AWS_CA_BUNDLE")


@pytest.mark.timeout(60)  # a damaged range of 9 MiB is fetched three times
@pytest.mark.parametrize("kind", [Buckets, Silent])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_damaged_object_is_found_by_the_checksum_of_its_store(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Buckets]
) -> None:
    given = base64.b64encode(ALGORITHMS[name](DATA)).decode()
    buckets = kind({"bucket": {"m/w.bin": DAMAGED}}, checksums={"m/w.bin": (name, given)})
    with serving(buckets) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        Attempt(store, "s3://bucket/m").fails(FailureKind.CORRUPT, "w.bin", name.lower())
        buckets.objects["bucket"]["m/w.bin"] = DATA
        Attempt(store, "s3://bucket/m").succeeds({"w.bin": DATA})


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"x-amz-storage-class": "GLACIER"}, ("archived (GLACIER)", "restore-object")),
        ({"x-amz-storage-class": "DEEP_ARCHIVE"}, ("archived (DEEP_ARCHIVE)", "restore-object")),
        (
            {
                "x-amz-storage-class": "INTELLIGENT_TIERING",
                "x-amz-archive-status": "DEEP_ARCHIVE_ACCESS",
            },
            ("archived (DEEP_ARCHIVE_ACCESS)", "restore it"),
        ),
        (
            {"x-amz-storage-class": "GLACIER", "x-amz-restore": 'ongoing-request="true"'},
            ("is being restored", "tried again by itself"),
        ),
    ],
)
def test_an_archived_object_is_told_as_such(
    store: Store, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], words: tuple[str, ...]
) -> None:
    error = refused(store, monkeypatch, told, FailureKind.UNSUPPORTED, *words)
    assert "credentials" not in error.message


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"x-amz-storage-class": "GLACIER_IR"},
        {"x-amz-storage-class": "GLACIER", "x-amz-restore": 'ongoing-request="false"'},
    ],
)
def test_an_object_that_is_not_archived_is_denied(
    store: Store, monkeypatch: pytest.MonkeyPatch, told: dict[str, str]
) -> None:
    refused(store, monkeypatch, told, FailureKind.DENIED, "credentials")


def refused(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    told: dict[str, str],
    kind: FailureKind,
    *words: str,
) -> DownloadError:
    def before(handler: Handler, _: str) -> bool:
        handler.reply(403, b"<Error><Code>InvalidObjectState</Code></Error>")
        return False

    archive = Archive({"bucket": {"m/w.bin": b"x" * 1000}}, before_get=before)
    archive.told = told
    with serving(archive) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        return Attempt(store, "s3://bucket/m").fails(kind, *words)
