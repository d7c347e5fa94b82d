"""Strict decoding of the answers of hooks. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError, field_validator

from deploy.local.standin.errors import SyncError
from deploy.local.standin.labels import Strict
from deploy.local.standin.spec import explain

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject

SHOWN = 600

A = TypeVar("A", bound=Strict)


class Answer(Strict):
    """Fields in the answers of sync and finalize hooks, for both kinds of controllers."""

    # A null field means the same as a missing field.
    status: dict[str, Any] | None = None
    resync_after_seconds: float | None = None
    finalized: bool | None = None

    @property
    def desired(self) -> list[KubeObject]:
        """The desired children or attachments."""
        raise NotImplementedError


def _with_kinds(items: list[KubeObject] | None) -> list[KubeObject] | None:
    for item in items or []:
        if not item.get("kind") or not isinstance(item.get("metadata", {}), dict):
            raise ValueError("an object lacks its kind or its metadata")
    return items


class CompositeAnswer(Answer):
    """Answer of a composite's sync or finalize hook."""

    children: list[dict[str, Any]] | None = None

    _kinds = field_validator("children")(_with_kinds)

    @property
    def desired(self) -> list[KubeObject]:
        """The desired children."""
        return self.children or []


class DecoratorAnswer(Answer):
    """Answer of a decorator's sync or finalize hook. Null removes a label or annotation."""

    labels: dict[str, str | None] | None = None
    annotations: dict[str, str | None] | None = None
    attachments: list[dict[str, Any]] | None = None

    _kinds = field_validator("attachments")(_with_kinds)

    @property
    def desired(self) -> list[KubeObject]:
        """The desired attachments."""
        return self.attachments or []


def decode(model: type[A], body: bytes) -> A:
    """Decode an answer. Raises SyncError for malformed JSON, unknown fields, duplicate fields."""
    duplicates: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # The last call is for the outermost object: only its duplicates count.
        keys = [key for key, _ in pairs]
        duplicates[:] = sorted({key for key in keys if keys.count(key) > 1})
        return dict(pairs)

    try:
        content = json.loads(body, object_pairs_hook=build)
    except ValueError as error:
        raise SyncError(f"can't read the hook's answer: {error}: {shorten(body)}") from error
    if duplicates:
        raise SyncError(f"hook's answer has duplicate fields: {', '.join(duplicates)}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise SyncError(f"hook's answer is not valid: {explain(error, 'answer')}") from error


def shorten(body: bytes) -> str:
    """The start of a body, for a log line."""
    text = body.decode(errors="replace").strip()
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
