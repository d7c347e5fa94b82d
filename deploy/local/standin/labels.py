"""Label selectors. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from collections.abc import Mapping


class Strict(BaseModel):
    """A part of a spec or of a hook's answer. An unknown field is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, strict=True, validate_by_name=False
    )


class Requirement(Strict):
    """An item of matchExpressions."""

    key: str = Field(min_length=1)
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] | None = None

    @model_validator(mode="after")
    def _values_fit_the_operator(self) -> Self:
        if (self.operator in {"In", "NotIn"}) != bool(self.values):
            raise ValueError(f"values do not fit the operator {self.operator}")
        return self

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy this requirement."""
        values = self.values or []
        match self.operator:
            case "In":
                return self.key in labels and labels[self.key] in values
            case "NotIn":
                return labels.get(self.key) not in values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class LabelSelector(Strict):
    """A label selector: all its requirements must match; without any, it matches everything."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy the selector."""
        return all(
            labels.get(key) == value for key, value in (self.match_labels or {}).items()
        ) and all(requirement.matches(labels) for requirement in self.match_expressions or [])


def selects(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy a selector; None selects everything."""
    return selector is None or selector.matches(labels)
