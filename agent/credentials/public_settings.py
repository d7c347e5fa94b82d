"""The agent's own settings without its secrets, for caches that may not use these. Pure."""

from __future__ import annotations

from agent.structs.credentials import Credentials

# Addresses of stores, and authorities to trust: no secrets, and a cache could name them itself.
_PUBLIC = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_CA_BUNDLE", "S3_ENDPOINT", "S3_USE_HTTPS", "S3_VERIFY_SSL", "S3_USER_VIRTUAL_BUCKET"),
    *("AZURE_STORAGE_BLOB_ENDPOINT", "STORAGE_EMULATOR_HOST", "HF_ENDPOINT"),
    *("HDFS_NAMENODE", "HDFS_ROOTPATH"),
)


def anonymous(own: Credentials) -> Credentials:
    """Credentials for the stores of the agent's own, without any secret."""
    return Credentials.of(
        {name: value for name in _PUBLIC if (value := own.get(name))}
        | {"awsAnonymousCredential": "true"}
    )
