"""What is left of the agent's own environment for those who may not use its credentials. Pure."""

from __future__ import annotations

from localmodel.agent.structs.credentials import Credentials

# Where the stores are, and whom to trust there. That is no secret, and a cache could name it.
_PUBLIC = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_CA_BUNDLE", "S3_ENDPOINT", "S3_USE_HTTPS", "S3_VERIFY_SSL", "S3_USER_VIRTUAL_BUCKET"),
    *("AZURE_STORAGE_BLOB_ENDPOINT", "STORAGE_EMULATOR_HOST", "HF_ENDPOINT"),
    *("HDFS_NAMENODE", "HDFS_ROOTPATH"),
)


def anonymous(own: Credentials) -> Credentials:
    """Credentials that ask the same stores as the agent's own would, as nobody."""
    return Credentials.of(
        {name: value for name in _PUBLIC if (value := own.get(name))}
        | {"awsAnonymousCredential": "true"}
    )
