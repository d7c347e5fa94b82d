"""The type of a limit of nodes: a number, or a percentage of all nodes, such as 25%."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from crds.base import NUMBER_AS_TEXT

_SYNTAX = re.compile(r"([1-9][0-9]{0,5})|([1-9][0-9]?|100)%", re.ASCII)
_MESSAGE = "must be a number of nodes of 1 or more, or a percentage from 1% to 100%"


def nodes_of(limit: str, total: int) -> int:
    """Number of nodes that a limit allows of `total`. A percentage is rounded up, to at least 1.

    Raises ValueError if the text is not a limit.
    """
    match = _SYNTAX.fullmatch(limit)
    if match is None:
        raise ValueError(f"{limit!r}: it {_MESSAGE}")
    number, percent = match.groups()
    return int(number) if number else max(-(-total * int(percent) // 100), 1)


def _checked(value: str) -> str:
    nodes_of(value, 0)
    return value


NodeLimit = Annotated[
    str,
    NUMBER_AS_TEXT,
    AfterValidator(_checked),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "maxLength": 7,
            "x-kubernetes-validations": [
                {
                    "rule": "type(self) == string ? self.matches('^([1-9][0-9]{0,5}|"
                    "([1-9][0-9]?|100)%)$') : dyn(self) >= 1 && dyn(self) <= 999999",
                    "message": f"maxConcurrentNodes {_MESSAGE}",
                }
            ],
        }
    ),
]
