"""The fields of CompositeController and DecoratorController that the stand-in knows. Pure."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError, field_validator

from deploy.local.standin import objects
from deploy.local.standin.errors import RefusedError
from deploy.local.standin.labels import LabelSelector, Strict

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject

UpdateMethod = Literal["OnDelete", "Recreate", "InPlace"]

DEFAULT_TIMEOUT = 10.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Seconds of a duration such as `1m30s`. Raises ValueError."""
    if not re.fullmatch(rf"({_DURATION.pattern})+", text):
        raise ValueError(f"{text!r} is not a duration")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


class Webhook(Strict):
    """The URL and timeout of a hook."""

    url: str
    timeout: str | None = None

    @field_validator("timeout")
    @classmethod
    def _is_a_duration(cls, text: str | None) -> str | None:
        if text is not None:
            duration(text)
        return text

    @property
    def timeout_seconds(self) -> float:
        """The timeout for an answer, in seconds."""
        return (duration(self.timeout) if self.timeout else 0) or DEFAULT_TIMEOUT


class Hook(Strict):
    """A hook of a controller."""

    version: Literal["v2"]
    webhook: Webhook


class Hooks(Strict):
    """The hooks of a controller."""

    sync: Hook
    finalize: Hook | None = None
    customize: Hook | None = None


class SecretKey(Strict):
    """A key of a Secret."""

    namespace: str
    name: str
    key: str


class Authorization(Strict):
    """A header Authorization with the scheme Bearer."""

    secret_ref: SecretKey


class EndpointConfig(Strict):
    """What the hooks at a host get with each call. host: with the port, if the URL has one."""

    host: str
    authorization: Authorization


class UpdateStrategy(Strict):
    """How to update a child that differs from the desired child."""

    method: UpdateMethod = "OnDelete"


class ChildRule(Strict):
    """A kind of children or attachments, and how to update them."""

    api_version: str
    resource: str
    update_strategy: UpdateStrategy = UpdateStrategy()


class ParentRule(Strict):
    """A kind of parents, and which of its objects to select."""

    api_version: str
    resource: str
    ignore_status_changes: bool = False
    label_selector: LabelSelector | None = None


class CompositeSpec(Strict):
    """spec of a CompositeController."""

    parent_resource: ParentRule
    child_resources: list[ChildRule] = Field(default_factory=list)
    generate_selector: Literal[True]
    resync_period_seconds: int | None = None
    endpoint_configs: list[EndpointConfig] = Field(default_factory=list)
    hooks: Hooks


class DecoratorSpec(Strict):
    """spec of a DecoratorController."""

    resources: list[ParentRule] = Field(min_length=1)
    attachments: list[ChildRule] = Field(default_factory=list)
    resync_period_seconds: int | None = None
    endpoint_configs: list[EndpointConfig] = Field(default_factory=list)
    hooks: Hooks


def explain(error: ValidationError, root: str) -> str:
    """The invalid fields and the reasons, in one line."""
    known = {"extra_forbidden": "not known to the stand-in"}
    return "; ".join(
        f"{'.'.join([root, *map(str, part['loc'])])}: {known.get(part['type'], part['msg'])}"
        for part in error.errors()
    )


def parse_composite(controller: KubeObject) -> CompositeSpec:
    """The spec of a CompositeController. Raises RefusedError, which names controller and field."""
    try:
        return CompositeSpec.model_validate(controller.get("spec") or {})
    except ValidationError as error:
        raise _refused(controller, error) from error


def parse_decorator(controller: KubeObject) -> DecoratorSpec:
    """The spec of a DecoratorController. Raises RefusedError, which names controller and field."""
    try:
        return DecoratorSpec.model_validate(controller.get("spec") or {})
    except ValidationError as error:
        raise _refused(controller, error) from error


def _refused(controller: KubeObject, error: ValidationError) -> RefusedError:
    return RefusedError(f"{objects.describe(controller)} is refused: {explain(error, 'spec')}")


def as_sent(controller: KubeObject) -> KubeObject:
    """The controller as sent to hooks: with the fields that Metacontroller always sets."""
    sent = copy.deepcopy(controller)
    sent.setdefault("status", {})
    for rule in sent["spec"].get("childResources", []):
        if "updateStrategy" in rule:
            rule["updateStrategy"].setdefault("statusChecks", {})
    return sent
