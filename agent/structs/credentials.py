"""Credentials for one model, under KServe's names of settings. Pure.

The names are those of the environment variables that KServe's storage initializer reads:
AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, S3_VERIFY_SSL, awsAnonymousCredential, HF_TOKEN, AZ_CLIENT_ID,
and so on. So a setting means the same in the agent's environment and in a Secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# KServe's namespace for the secrets of downloads.
DEFAULT_NAMESPACE = "kserve-localmodel-jobs"
# The content of a Google service account's key file; KServe mounts it under this name.
GCS_KEY_FILE = "gcloud-application-credentials.json"
# Certificates of the CAs to trust for S3, as PEM. KServe mounts them as a file.
S3_AUTHORITIES = "AWS_CA_BUNDLE_PEM"
# The setting `<server>-headers` (server: see agent.structs.urls) holds the headers for a web
# server, as a JSON object.
HEADERS_SUFFIX = "-headers"


class Unlisted(StrEnum):
    """Whether namespace caches may use credentials that do not list the allowed namespaces."""

    ALLOW = "allow"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Credentials:
    """Settings by name, and whether they are the agent's own.

    The agent's own are those of its environment. Only with these may a source use what the node or
    the cloud gives the agent beside them: a role, a metadata service, a file, a Hadoop login. All
    others are a tenant's, and hold everything that the tenant may use. Hashable, so that clients
    can be cached by their credentials; the text of credentials shows no secret.
    """

    items: tuple[tuple[str, str], ...] = field(repr=False)
    own: bool = False

    @classmethod
    def of(cls, values: Mapping[str, str], *, own: bool = False) -> Credentials:
        """Credentials with these settings."""
        return cls(tuple(sorted(values.items())), own)

    def get(self, name: str, default: str = "") -> str:
        """The value of a setting."""
        return dict(self.items).get(name, default)


@dataclass(frozen=True)
class CredentialRef:
    """The credentials that a cache names: a key of storage-config, or else a ServiceAccount."""

    service_account: str = ""
    storage_key: str | None = None
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)
