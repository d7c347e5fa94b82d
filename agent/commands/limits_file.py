"""The limits file, which an administrator may change while the agent runs.

    bytesPerSecond: 500Mi
    connectionsPerOrigin: 32

In a cluster the file is a mounted ConfigMap, which kubelet updates.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import yaml
from pydantic import Field, ValidationError, field_validator

from agent.engine.limits import Limits
from agent.structs.log import log
from agent.structs.options import MAX_CONNECTIONS
from crds.base import JsonObject
from crds.quantity import parse_quantity
from crds.quantity_types import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POLL_SECONDS = 2.0
NO_LIMITS = Limits()


class LimitsError(Exception):
    """The limits file is invalid. The message says why."""


class _LimitsFile(JsonObject):
    model_config = JsonObject.model_config | {"extra": "forbid"}

    bytes_per_second: Quantity | None = None
    connections_per_origin: int | None = Field(default=None, ge=1, le=MAX_CONNECTIONS)

    @field_validator("bytes_per_second")
    @classmethod
    def _is_above_zero(cls, value: str | None) -> str | None:
        if value is not None and parse_quantity(value) < 1:
            raise ValueError("must be above zero; leave it out for no limit")
        return value


def read_limits(path: Path, defaults: Limits = NO_LIMITS) -> Limits:
    """The limits of a file, with `defaults` for those that it does not set. Raises LimitsError."""
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return defaults
    except (OSError, ValueError, yaml.YAMLError) as error:
        # ValueError: no UTF-8, or what looks like a date, such as 2026-02-30, and is none.
        raise LimitsError(f"{path} cannot be read: {error}") from None
    try:
        found = _LimitsFile.model_validate(content or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise LimitsError(f"{path}: {where}: {first['msg']}") from None
    connections, rate = found.connections_per_origin, found.bytes_per_second
    return Limits(
        connections_per_origin=connections or defaults.connections_per_origin,
        bytes_per_second=(defaults.bytes_per_second if rate is None else parse_quantity(rate)),
    )


def follow(path: Path, apply: Callable[[Limits], None], defaults: Limits = NO_LIMITS) -> None:
    """Apply each change of the file, in a thread. An invalid file changes nothing."""
    threading.Thread(
        target=_follow, args=(path, apply, defaults), name="limits", daemon=True
    ).start()


def _follow(path: Path, apply: Callable[[Limits], None], defaults: Limits) -> None:
    wait = threading.Event()
    current: Limits | str | None = None
    while True:
        found: Limits | str
        try:
            found = read_limits(path, defaults)
        except LimitsError as error:
            found = str(error)
        if found != current:
            if isinstance(found, Limits):
                apply(found)
                log.info(
                    "Limits are set",
                    bytesPerSecond=found.bytes_per_second,
                    connectionsPerOrigin=found.connections_per_origin,
                )
            else:
                log.warning("Limits are wrong and stay as they were", reason=found)
            current = found
        wait.wait(POLL_SECONDS)
