"""Who may call the hooks: those who send the token of a file, if there is such a file.

The file is a mounted Secret. It is looked at on every call, so that a new token counts without a
restart; the old one is refused from then on.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_FILE_VARIABLE = "LOCALMODEL_HOOKS_TOKEN_FILE"  # noqa: S105 - the name of a file's variable
_SCHEME = "bearer"


class Access:
    """Compares the tokens of calls with that of a file. Threads may share it.

    file: None: everybody who reaches the hooks may call them.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Access:
        """The file that the environment names."""
        named = environment.get(TOKEN_FILE_VARIABLE)
        return cls(Path(named) if named else None)

    def problem(self) -> str | None:
        """Why no call can be allowed now; None if calls with the token are, or all calls."""
        try:
            self._token()
        except (OSError, ValueError) as error:
            return f"{TOKEN_FILE_VARIABLE}: {error}"
        return None

    def allows(self, authorization: str | None) -> bool:
        """Whether a call with this header `Authorization` may go on."""
        try:
            token = self._token()
        except (OSError, ValueError):
            return False
        if token is None:
            return True
        scheme, _, sent = (authorization or "").partition(" ")
        # In constant time: the time of an answer must not tell how much of a token was right.
        right = hmac.compare_digest(sent.strip().encode(), token.encode())
        return scheme.lower() == _SCHEME and right

    def _token(self) -> str | None:
        if self._file is None:
            return None
        token = self._file.read_text("utf-8").strip()
        if not token:
            raise ValueError(f"{self._file} is empty: write a token to the Secret")
        return token
