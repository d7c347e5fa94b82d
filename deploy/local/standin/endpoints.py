"""What a controller sends to the hosts of its hooks: endpointConfigs."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.kube import meta
from deploy.kube.kinds import SECRETS
from deploy.local.standin.errors import SyncError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.kube.client import KubeClient
    from deploy.local.standin.spec import EndpointConfig, SecretKey


class Endpoints:
    """Reads the Secrets of endpointConfigs, with the rights that Metacontroller needs."""

    def __init__(self, api: KubeClient) -> None:
        self._api = api

    def authorizations(self, configs: Iterable[EndpointConfig]) -> dict[str, str]:
        """The header Authorization for each host. Raises SyncError and ApiError.

        Like Metacontroller's, they are read when a controller starts, and not again.
        """
        return {
            config.host: f"Bearer {self._value(config.authorization.secret_ref)}"
            for config in configs
        }

    def _value(self, ref: SecretKey) -> str:
        # Metacontroller has a cache of all Secrets, and so needs the right to list them all.
        secrets = (
            one
            for one in self._api.list(SECRETS)
            if (meta.namespace(one), meta.name(one)) == (ref.namespace, ref.name)
        )
        secret = next(secrets, None)
        what = f"authorization secret {ref.namespace}/{ref.name}"
        if secret is None:
            raise SyncError(f"can't get {what}: it does not exist")
        value = (secret.get("data") or {}).get(ref.key)
        if value is None:
            raise SyncError(f"{what} does not contain key {ref.key!r}")
        try:
            return base64.b64decode(value).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise SyncError(f"{what} has no text in key {ref.key!r}") from error


def authorization(url: str, by_host: dict[str, str]) -> str | None:
    """The header for a hook's URL."""
    return by_host.get(urlsplit(url).netloc)
