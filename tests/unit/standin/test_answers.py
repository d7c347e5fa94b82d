from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deploy.local.standin.answers import CompositeAnswer, DecoratorAnswer, decode
from deploy.local.standin.errors import SyncError
from deploy.local.standin.rules import CustomizeAnswer
from deploy.local.standin.webhook import retry_after


def test_null_is_as_good_as_missing() -> None:
    empty = decode(CompositeAnswer, b"{}")
    nulls = b'{"status": null, "children": null, "finalized": null, "resyncAfterSeconds": null}'
    assert decode(CompositeAnswer, nulls) == empty
    assert empty.desired == []
    assert empty.status is None


def test_a_whole_answer() -> None:
    body = b'{"status":{"a":1},"children":[{"kind":"A"}],"finalized":true,"resyncAfterSeconds":2}'
    answer = decode(CompositeAnswer, body)
    assert answer.status == {"a": 1}
    assert answer.desired == [{"kind": "A"}]
    assert answer.finalized
    assert answer.resync_after_seconds == 2.0


def test_a_decorator_may_null_labels() -> None:
    answer = decode(DecoratorAnswer, b'{"labels": {"a": null, "b": "c"}, "attachments": []}')
    assert answer.labels == {"a": None, "b": "c"}


def test_a_customize_answer() -> None:
    answer = decode(
        CustomizeAnswer, b'{"relatedResources": [{"apiVersion": "v1", "resource": "nodes"}]}'
    )
    assert [rule.resource for rule in answer.related_resources or []] == ["nodes"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "can't read"),
        (b"nonsense", "nonsense"),
        (b"[]", "not valid"),
        (b"null", "not valid"),
        (b"{} {}", "can't read"),
        (b'{"childs": []}', "answer.childs"),
        (b'{"attachments": []}', "answer.attachments"),
        (b'{"status": {}, "status": {}}', "duplicate fields: status"),
        (b'{"status": []}', "answer.status"),
        (b'{"children": {}}', "answer.children"),
        (b'{"children": [{"metadata": {}}]}', "kind"),
        (b'{"children": [null]}', "answer.children"),
        (b'{"resyncAfterSeconds": "2"}', "resyncAfterSeconds"),
        (b'{"finalized": 1}', "finalized"),
    ],
)
def test_a_malformed_answer_fails_the_sync(body: bytes, message: str) -> None:
    with pytest.raises(SyncError, match=message):
        decode(CompositeAnswer, body)


@pytest.mark.parametrize(
    "rule",
    [
        '"nodes"',
        '{"apiVersion": "v1"}',
        '{"apiVersion": "v1", "resource": "pods", "namespaceSelectors": {}}',
        '{"apiVersion": "v1", "resource": "pods", "namespaceSelector": {"matchLabel": {}}}',
        '{"apiVersion": "v1", "resource": "pods", "labelSelector": {"matchLabel": {}}}',
    ],
)
def test_a_malformed_rule_fails_the_sync(rule: str) -> None:
    with pytest.raises(SyncError, match="not valid"):
        decode(CustomizeAnswer, f'{{"relatedResources": [{rule}]}}'.encode())


def test_duplicates_within_objects_are_as_json_has_them() -> None:
    answer = decode(CompositeAnswer, b'{"children": [{"kind": "A", "kind": "B"}]}')
    assert answer.desired == [{"kind": "B"}]


def test_a_long_body_is_shortened_in_the_message() -> None:
    with pytest.raises(SyncError) as caught:
        decode(CompositeAnswer, b"x" * 10_000)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("7", 7),
        ("", 0),
        ("soon", 0),
        ("-3", 0),
        ("Tue, 24 Nov 2026 12:00:05 GMT", 5),
    ],
)
def test_retry_after(header: str, expected: int) -> None:
    assert retry_after(header, datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)) == expected
