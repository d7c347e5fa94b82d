"""The part of the API server that credentials need: objects of a namespace, read by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Secret:
    """A decoded secret. Its repr shows no value."""

    namespace: str
    name: str
    data: Mapping[str, bytes] = field(repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Its name in messages."""
        return f"the secret {self.namespace}/{self.name}"


@dataclass(frozen=True)
class ServiceAccount:
    """A ServiceAccount, with the names of the secrets attached to it."""

    namespace: str
    name: str
    secrets: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Its name in messages."""
        return f"the ServiceAccount {self.namespace}/{self.name}"


class SecretApi(Protocol):
    """Reads objects by name. Calls may come from several threads.

    All raise DownloadError: Denied if there is no such object or it may not be read, Unreachable if
    the API server does not answer.
    """

    def secret(self, namespace: str, name: str) -> Secret:
        """A secret."""
        ...

    def service_account(self, namespace: str, name: str) -> ServiceAccount:
        """A ServiceAccount."""
        ...

    def config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        """The texts of a ConfigMap."""
        ...
