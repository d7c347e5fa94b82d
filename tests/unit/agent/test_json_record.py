"""The JSON of records: it must be read, and hashed, by agents of other versions."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from agent.structs.failures import FailureKind
from agent.structs.json_record import JsonRecord, RecordError
from agent.structs.manifest import Access, CacheName, Grant, Manifest, ManifestFile, make_manifest
from agent.structs.records import (
    BadFile,
    Evicted,
    FailedAttempt,
    FailedAttempts,
    Scrub,
    Usage,
)
from agent.structs.sizes import EvictionReason
from agent.structs.verified import VerifiedFile, VerifiedManifest, decode

TIME = datetime(2026, 11, 29, 12, 0, 0, 123456, tzinfo=UTC)
JSON_TIME = "2026-11-29T12:00:00.123456Z"
SHA = "a" * 64

VERIFIED = VerifiedManifest(
    uri="s3://bucket/modèle",
    origin="https://store",
    files=(VerifiedFile('a/ü "b"\\', 3, '"etag-1"', SHA), VerifiedFile("w.bin", 0, "v2", SHA)),
)
TEXT = (
    '{"schemaVersion":1,"uri":"s3://bucket/modèle","origin":"https://store","files":['
    f'{{"path":"a/ü \\"b\\"\\\\","size":3,"version":"\\"etag-1\\"","sha256":"{SHA}"}},'
    f'{{"path":"w.bin","size":0,"version":"v2","sha256":"{SHA}"}}]}}'
).encode()


def test_the_text_of_a_verified_manifest_is_the_same_in_each_version() -> None:
    """Agents of different versions compare the hashes of these texts."""
    assert VERIFIED.encode() == TEXT
    assert decode(TEXT, VERIFIED.hash) == VERIFIED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            {
                "schemaVersion": 1,
                "uri": "s3://b/m",
                "key": "f11d32eebe5b30e7",
                "caches": [{"name": "m", "namespace": "", "nodeGroup": "gpus"}],
                "files": [
                    {"path": "a.bin", "size": 1, "checksum": "crc64nvme:00"},
                    {"path": "w.bin", "size": 5, "sha256": SHA, "version": "v"},
                ],
                "size": 6,
                "access": {
                    "origin": "https://store",
                    "listing": "x",
                    "grants": [{"namespace": "team", "serviceAccount": "", "parameters": "d"}],
                },
            },
            make_manifest(
                "s3://b/m",
                [
                    ManifestFile("w.bin", 5, SHA, version="v"),
                    ManifestFile("a.bin", 1, checksum="crc64nvme:00"),
                ],
                [CacheName(name="m", node_group="gpus")],
                Access(
                    origin="https://store",
                    listing="x",
                    grants=(Grant(namespace="team", parameters="d"),),
                ),
            ),
        ),
        (
            {"publishedTime": JSON_TIME, "lastUsedTime": "2026-11-29T12:00:00Z"},
            Usage(published_time=TIME, last_used_time=TIME.replace(microsecond=0)),
        ),
        (
            {"time": JSON_TIME, "bad": [{"path": "a", "problem": "differs"}]},
            Scrub(time=TIME, bad=(BadFile(path="a", problem="differs"),)),
        ),
        (
            {"time": JSON_TIME, "size": 5, "reason": "MadeRoom", "message": "m"},
            Evicted(time=TIME, size=5, reason=EvictionReason.MADE_ROOM, message="m"),
        ),
        (
            {
                "attempts": [
                    {
                        "requester": {"namespace": "team", "serviceAccount": ""},
                        "kind": "NotFound",
                        "detail": "gone",
                        "attempts": 2,
                        "retryTime": JSON_TIME,
                    }
                ]
            },
            FailedAttempts(
                attempts=(
                    FailedAttempt(
                        requester=Grant(namespace="team"),
                        kind=FailureKind.NOT_FOUND,
                        detail="gone",
                        attempts=2,
                        retry_time=TIME,
                    ),
                )
            ),
        ),
    ],
)
def test_records_of_other_versions_are_read(text: dict[str, object], expected: JsonRecord) -> None:
    """Those of an older agent lack fields, and have no null; a newer one's have other fields."""
    kind = type(expected)
    assert kind.decode(json.dumps(text | {"ofLater": {"a": [1]}}).encode()) == expected
    assert kind.decode(expected.encode()) == expected


def test_what_older_agents_cannot_read_as_null_is_left_out() -> None:
    """An agent of the former version takes the place of this one after a rollback."""
    manifest = make_manifest("s3://b/m", [ManifestFile("w.bin", 5, SHA)], [CacheName(name="m")])
    written = json.loads(manifest.encode())
    assert written["schemaVersion"] == 1
    assert written["files"] == [{"path": "w.bin", "size": 5, "sha256": SHA}]
    assert written["caches"] == [{"name": "m"}]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b'{"schemaVersion": 2, "time": "2026-11-29T12:00:00Z"}',
        b'{"time": "yesterday"}',
        b'{"time": "2026-11-29T12:00:00Z", "bad": [{"path": "a"}]}',
        b'{"time": "2026-11-29T12:00:00Z", "other": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_record_is_refused(content: bytes) -> None:
    with pytest.raises(RecordError):
        Scrub.decode(content)


def test_a_file_outside_its_model_is_refused_where_it_is_made() -> None:
    for kind in (
        lambda path: ManifestFile(path, 1),
        lambda path: VerifiedFile(path, 1, None, SHA),
    ):
        with pytest.raises(ValueError, match="has the segment"):
            kind("../a")
    with pytest.raises(RecordError, match=r"has the segment.*files\[0\]"):
        VerifiedManifest.decode(TEXT.replace(b"w.bin", b"a/../b").replace(b"a/\xc3\xbc", b"../"))
    assert Manifest.decode(make_manifest("s3://b/m", []).encode()).files == ()
