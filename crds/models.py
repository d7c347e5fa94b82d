"""A model, and how to download and keep it: what caches, plans and nodes say of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crds.base import Identity, Int32, JsonObject, for_users, is_falsy, validations
from crds.eviction import Retention
from crds.keys import model_key
from crds.peers import ManifestHash
from crds.quantity_types import Quantity, positive

# Schemes that KServe's users write. The agent decides which of them it can download.
SCHEMES = (
    "azure",
    "file",
    "git",
    "git+http",
    "git+https",
    "git+ssh",
    "gs",
    "hdfs",
    "hf",
    "http",
    "https",
    "model-registry",
    "modelscope",
    "oci",
    "oci+fetch",
    "oci+modelcar",
    "oci+native",
    "pvc",
    "s3",
    "swebhdfs",
    "webhdfs",
)
_ANY_SCHEME = "|".join(SCHEMES).replace("+", "[+]")

SourceModelUri = Annotated[
    str,
    Field(
        description="URI of the model, such as s3://bucket/path, hf://org/model:revision or "
        "https://host/file. Immutable. All schemes of KServe are accepted; for those that the "
        "agents cannot download (git://, model-registry://, modelscope://, oci:// and the like) "
        "the status says Unsupported.",
        min_length=1,
        max_length=2048,
        json_schema_extra=validations(
            (
                rf"self.matches('^(file:///|({_ANY_SCHEME})://[^/\\s])')",
                (
                    "sourceModelUri must begin with one of "
                    f"{', '.join(s + '://' for s in SCHEMES)} and name a place after it"
                ),
            ),
            (
                "self == oldSelf",
                "sourceModelUri is immutable: create another cache for another model",
            ),
        ),
    ),
]

ModelHash = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$", max_length=71)]

HASH_RULE = (
    "sha256: and the SHA-256 of the lines '<sha256 of the file>  <path>\\n' of all files of the "
    "model, sorted by path"
)

# The parameters of all models go to every node in one object: 31 caches with the longest parameters
# fill a group's plan (hooks/object_size.py). A certificate has some 2 KiB; a bundle of many belongs
# in the ConfigMap that the secret names.
PARAMETERS_MAX = 32
PARAMETERS_LENGTH_MAX = 16_384


class ModelStorage(JsonObject):
    """An entry of the secret storage-config, and settings that override it."""

    key: str | None = Field(
        default=None,
        description="Key in the secret storage-config, which is in the namespace of "
        "serviceAccountName.",
        max_length=253,
    )
    parameters: dict[str, str] | None = Field(
        default=None,
        description="Settings that override those of the key. Without a key they have no effect. "
        "If the key holds a token, they cannot change the host that gets the token. A cache sets "
        f"at most {PARAMETERS_MAX}, of {PARAMETERS_LENGTH_MAX} characters together.",
        json_schema_extra=for_users(
            maxProperties=PARAMETERS_MAX,
            additionalProperties={"type": "string", "maxLength": PARAMETERS_LENGTH_MAX},
            **validations(
                (
                    f"self.map(key, size(key) + size(self[key])).sum() <= {PARAMETERS_LENGTH_MAX}",
                    f"parameters must have at most {PARAMETERS_LENGTH_MAX} characters together",
                )
            ),
        ),
    )


class ModelRequest(JsonObject):
    """A model, and how to download and keep it."""

    source_model_uri: SourceModelUri
    model_size: Quantity = Field(
        description="Size of the model on disk, such as 140Gi. Capacity is planned with it.",
        json_schema_extra=positive("modelSize must be a quantity of more than zero, such as 140Gi"),
    )
    service_account_name: str | None = Field(
        default=None,
        description="ServiceAccount whose secrets hold the credentials of the source. It is in the "
        "namespace that the agents are configured with (kserve-localmodel-jobs), also for a "
        "LocalModelNamespaceCache.",
        max_length=253,
    )
    storage: ModelStorage | None = Field(
        default=None,
        description="Credentials of the source by a key of the secret storage-config, which "
        "overrides serviceAccountName. Without a key, the secrets of serviceAccountName are used, "
        "or those of the ServiceAccount default.",
    )
    priority: Int32 = Field(
        default=0,
        description="Models of a higher priority are downloaded first, and are kept if not all "
        "fit.",
        ge=-1_000_000,
        le=1_000_000,
        exclude_if=is_falsy,
    )
    retention: Retention = Field(
        default=Retention.EVICTABLE,
        description="Evictable: a group with the eviction policy LRU may evict the model while no "
        "pod mounts it. Pinned: the model is never evicted.",
        exclude_if=lambda value: value is Retention.EVICTABLE,
    )
    hash: ModelHash | None = Field(
        default=None,
        description=f"Expected content of the model: {HASH_RULE}. A model with another hash is not "
        "published. Where caches share a URI, and so a folder, the hash of a LocalModelCache "
        "overrides those of LocalModelNamespaceCaches.",
    )

    @property
    def key(self) -> str:
        """Name of the model's folder on a disk."""
        return model_key(self.source_model_uri)


class PlacedModel(ModelRequest):
    """A model that every node of the group keeps."""

    model_name: str = Field(description="Name of the cache.", max_length=253)
    namespace: str = Field(
        default="",
        description="Namespace of the cache; empty for a LocalModelCache.",
        max_length=63,
        exclude_if=is_falsy,
    )
    # Without the rules of the cache's field: the cache has passed them, and on a list of this
    # length they would exceed the API server's budget for rules.
    source_model_uri: str = Field(description="URI of the model.", max_length=2048)
    model_size: Quantity = Field(description="Declared size of the model.")
    referenced: bool = Field(
        default=False,
        description="Whether a service refers to the model. The pods of a node are watched by its "
        "agent.",
        exclude_if=is_falsy,
    )

    precedence: Int32 = Field(
        default=0,
        description="Which source fills the folder where caches of several namespaces have this "
        "URI: that of the entry with the lowest precedence on the node. LocalModelCaches come "
        "first, then the namespace whose cache is oldest.",
        ge=0,
        exclude_if=is_falsy,
    )
    verified_manifest: ManifestHash | None = Field(
        default=None,
        description="Hash of the manifest that nodes of the group agree on, where its nodes fetch "
        "from each other: two nodes that read the origin themselves report it, or one whose copy "
        "has the hash that the cache asks for. Absent: none yet.",
    )

    @property
    def identity(self) -> Identity:
        """Key, namespace and name of the cache: see ModelIdentity."""
        return (self.key, self.namespace, self.model_name)
