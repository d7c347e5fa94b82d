"""Kubernetes quantities of bytes, such as `140Gi`.

The grammar is that of k8s.io/apimachinery/pkg/api/resource, with exponents of two digits at most:
whatever the schema lets through can be computed with. What is more than an int64 counts as the
largest one. Kubernetes caps it so in binary notation alone: it computes with 0 for 20E, and with
less than nothing for 2^63.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from crds.base import NUMBER_AS_TEXT

_BINARY = {
    suffix: Decimal(1024) ** power
    for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)
}
_DECIMAL = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
}
_SYNTAX = re.compile(
    r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:[eE]([+-]?\d{1,2})|(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?))",
    re.ASCII,
)
_LENGTH_MAX = 64
_MAX = 2**63 - 1
# More digits than a product can have: nothing is rounded but by the last step.
_EXACT = Context(prec=256)

# As controller-gen writes it for resource.Quantity, but for the exponents.
_SCHEMA_PATTERN = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"


# At most 4096 quantities, of 64 characters each: a longer text raises, and errors are not cached.
@lru_cache(maxsize=4096)
def parse_quantity(text: str) -> int:
    """Bytes of a quantity, rounded up, 2^63-1 at most.

    Raises ValueError for what is none, and for less than zero.
    """
    match = _SYNTAX.fullmatch(text) if len(text) <= _LENGTH_MAX else None
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 500Mi or 140Gi")
    number, exponent, suffix = match.groups()
    with localcontext(_EXACT):
        factor = (
            Decimal(10) ** int(exponent) if exponent else _BINARY.get(suffix) or _DECIMAL[suffix]
        )
        size = Decimal(number) * factor
        if size < 0:
            raise ValueError(f"{text!r} is less than zero")
        return min(int(size.to_integral_value(rounding=ROUND_CEILING)), _MAX)


def format_quantity(size: int) -> str:
    """Bytes as a quantity that a person can read, in the largest binary unit, to one decimal.

    It rounds: for display, and for comparisons by eye, never to compute with.
    """
    for suffix, unit in reversed(_BINARY.items()):
        if size >= unit:
            return f"{Decimal(size) / unit:.1f}".removesuffix(".0") + suffix
    return str(size)


def _checked(value: str) -> str:
    """The text, or one that Kubernetes takes for the largest int64 too: it goes on into volumes."""
    return "8Ei" if parse_quantity(value) == _MAX else value


def positive(message: str) -> dict[str, Any]:
    """Schema extension: a CEL rule that refuses quantities of zero and less."""
    rule = (
        "type(self) == string ? isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))"
        " : dyn(self) > 0"
    )
    return {"x-kubernetes-validations": [{"rule": rule, "message": message}]}


_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": _SCHEMA_PATTERN,
    "x-kubernetes-int-or-string": True,
    "maxLength": _LENGTH_MAX,
}
_CHECKED = AfterValidator(_checked)

Quantity = Annotated[str, NUMBER_AS_TEXT, _CHECKED, WithJsonSchema(_SCHEMA)]
# Of a volume or a claim: the API server takes none of another amount.
Amount = Annotated[
    str,
    NUMBER_AS_TEXT,
    _CHECKED,
    WithJsonSchema(_SCHEMA | positive("must be a quantity of more than zero, such as 500Gi")),
]
