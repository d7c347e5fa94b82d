"""The types of fields that hold a quantity of bytes: see quantity.py for the grammar."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from crds.base import NUMBER_AS_TEXT
from crds.quantity import BYTES_MAX, LENGTH_MAX, parse_quantity

# The pattern that controller-gen writes for resource.Quantity, with shorter exponents.
_SCHEMA_PATTERN = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"


def _checked(value: str) -> str:
    """The text, or `8Ei` if it is too large: Kubernetes reads that as the largest int64 too."""
    return "8Ei" if parse_quantity(value) == BYTES_MAX else value


def positive(message: str) -> dict[str, Any]:
    """Schema extension: a CEL rule that refuses zero and negative quantities."""
    rule = (
        "type(self) == string ? isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))"
        " : dyn(self) > 0"
    )
    return {"x-kubernetes-validations": [{"rule": rule, "message": message}]}


_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": _SCHEMA_PATTERN,
    "x-kubernetes-int-or-string": True,
    "maxLength": LENGTH_MAX,
}
_CHECKED = AfterValidator(_checked)

Quantity = Annotated[str, NUMBER_AS_TEXT, _CHECKED, WithJsonSchema(_SCHEMA)]
# A quantity of a volume or a claim, where the API server refuses zero.
Amount = Annotated[
    str,
    NUMBER_AS_TEXT,
    _CHECKED,
    WithJsonSchema(_SCHEMA | positive("must be a quantity of more than zero, such as 500Gi")),
]
