"""Kubernetes quantities of bytes, such as `140Gi`.

The grammar is that of k8s.io/apimachinery/pkg/api/resource, with exponents of at most two digits,
so that each quantity that the schema accepts can be computed. A quantity above the largest int64
counts as the largest int64. Kubernetes does so in binary notation only: it computes 0 for 20E, and
a negative number for 2^63.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from functools import lru_cache

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
LENGTH_MAX = 64
BYTES_MAX = 2**63 - 1
# More digits than a product can have: only the last step rounds.
_EXACT = Context(prec=256)


# At most 4096 quantities, of 64 characters each: a longer text raises, and errors are not cached.
@lru_cache(maxsize=4096)
def parse_quantity(text: str) -> int:
    """Bytes of a quantity, rounded up, at most 2^63-1.

    Raises ValueError if the text is not a quantity, or a negative one.
    """
    match = _SYNTAX.fullmatch(text) if len(text) <= LENGTH_MAX else None
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
        return min(int(size.to_integral_value(rounding=ROUND_CEILING)), BYTES_MAX)


def format_quantity(size: int) -> str:
    """Bytes as a quantity for people, in the largest binary unit, rounded to one decimal."""
    for suffix, unit in reversed(_BINARY.items()):
        if size >= unit:
            return f"{Decimal(size) / unit:.1f}".removesuffix(".0") + suffix
    return str(size)
