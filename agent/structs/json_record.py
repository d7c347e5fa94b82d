"""The base of what agents keep on their disks, or send to each other, as JSON."""

from __future__ import annotations

from functools import cache
from typing import Any, Self

import msgspec
from msgspec import Struct


class RecordError(ValueError):
    """The content is not a record of this kind. The message says where it is wrong."""


class JsonRecord(Struct, frozen=True, rename="camel"):
    """An immutable record, camelCase in JSON.

    Unknown fields are ignored, so that records of a newer agent stay readable.
    """

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """The record in a JSON text. Raises RecordError."""
        try:
            record: Self = _decoder(cls).decode(content)
            record.check()
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise RecordError(str(error)) from None
        return record

    def encode(self) -> bytes:
        """The JSON text, without spaces."""
        return msgspec.json.encode(self)

    def check(self) -> None:
        """Raise ValueError if fields contradict each other. A record that is read is checked."""


@cache
def _decoder(kind: type[JsonRecord]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
