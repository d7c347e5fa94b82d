"""Resolves what a cache names as credentials to the credentials for a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.credentials.attached_secrets import attached_settings
from agent.credentials.permission import check_account, check_entry
from agent.credentials.public_settings import anonymous
from agent.credentials.settings import (
    CA_CONFIG_MAP,
    CA_PATH,
    Setting,
    check_authorities,
    denied,
)
from agent.credentials.storage_config import STORAGE_CONFIG, stored_settings
from agent.structs.credentials import S3_AUTHORITIES, Credentials, Unlisted

if TYPE_CHECKING:
    from agent.credentials.secret_api import SecretApi
    from agent.structs.requests import Requester

_CA_FILE = "cabundle.crt"


class CredentialResolver:
    """Reads secrets of one namespace, anew for each attempt: a corrected secret works at the next.

    `own` are the agent's. Where caches of namespaces may not use unlisted credentials, neither may
    they use the agent's own: a cache that names none is anonymous at the same stores.
    """

    def __init__(
        self, api: SecretApi, namespace: str, unlisted: Unlisted, own: Credentials
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._unlisted = unlisted
        self._own = own
        self._anonymous = anonymous(own)

    def resolve(self, requester: Requester) -> Credentials:
        """The credentials: the agent's own if the cache names none.

        Named credentials without any setting are not replaced by the agent's own. Raises
        DownloadError: Denied with what to correct, or Unreachable.
        """
        ref, whose = requester.credentials, requester.namespace
        if ref is None:
            return self._anonymous if whose and self._unlisted is Unlisted.REFUSE else self._own
        if ref.storage_key is not None:
            secret = self._api.secret(self._namespace, STORAGE_CONFIG)
            if whose:
                check_entry(whose, secret, ref.storage_key, self._unlisted)
            settings = stored_settings(secret, ref.storage_key, dict(ref.parameters))
        else:
            account = self._api.service_account(self._namespace, ref.service_account)
            secrets = [self._api.secret(self._namespace, name) for name in account.secrets]
            if whose:
                check_account(whose, account, secrets, self._unlisted)
            settings = attached_settings(account, secrets)
        return Credentials.of(self._with_authorities(settings))

    def _with_authorities(self, settings: dict[str, str]) -> dict[str, str]:
        """The settings with the certificates that KServe would mount from a ConfigMap."""
        name = settings.pop(CA_CONFIG_MAP, "")
        if not name or S3_AUTHORITIES in settings or settings.get("S3_VERIFY_SSL") == "0":
            return settings
        file = settings.pop(CA_PATH, _CA_FILE).rpartition("/")[2]
        where = f"the ConfigMap {self._namespace}/{name}"
        found = self._api.config_map(self._namespace, name)
        if file not in found:
            raise denied(
                f"{where} has no key {file}",
                "put the certificates of the S3 server's authority there, as PEM",
            )
        certificates = check_authorities(Setting(found[file].strip(), f"{file} of {where}"))
        return settings | {S3_AUTHORITIES: certificates}
