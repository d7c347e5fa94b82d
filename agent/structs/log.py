"""The log of the agent: events with fields. A command decides where they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Log:
    """Passes events on, unless told otherwise to structlog, which the first event imports.

    The methods are structlog's: `log.warning("Download failed", key=key)`.
    """

    def __init__(self) -> None:
        self._receiver: Any = None

    def send_to(self, receiver: object | None) -> None:
        """Send events to this object, which has the methods of a logger; None: to structlog."""
        self._receiver = receiver

    def __getattr__(self, level: str) -> Callable[..., None]:
        method: Callable[..., None] = getattr(self._receiver or _structlog(), level)
        return method


def _structlog() -> Any:
    import structlog  # noqa: PLC0415 - a tenth of the start of a pull, which may log nothing

    return structlog.get_logger()


log = Log()
