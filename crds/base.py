"""Base types of the API: JSON objects, metadata, conditions, and bounds of fields."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

GROUP = "serving.kserve.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

ATOMIC_LIST: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
ATOMIC_MAP: dict[str, Any] = {"x-kubernetes-map-type": "atomic"}
# Key of the schema extension of `for_users`.
FOR_USERS = "x-for-users"


def for_users(**bounds: Any) -> dict[str, Any]:
    """Schema extension: bounds of a field in the kinds that users write, such as maxItems=256.

    pydantic does not check such a bound, so that objects which were stored before it stay readable.
    The kinds that the hooks write have the same field without the bound: they copy it from there.
    """
    return {FOR_USERS: bounds}


def validations(*rules: tuple[str, str]) -> dict[str, Any]:
    """Schema extension: pairs of a CEL rule and the message that a user sees."""
    return {"x-kubernetes-validations": [{"rule": r, "message": m} for r, m in rules]}


LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
LABEL_KEY = (
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)

LabelValue = Annotated[str, Field(pattern=LABEL_VALUE, max_length=63)]
Labels = Annotated[
    dict[str, LabelValue],
    Field(
        json_schema_extra={"maxProperties": 32}
        | validations(
            (
                f"self.all(key, key.matches('{LABEL_KEY}'))",
                "a label key is an optional prefix such as example.com/, and a name",
            )
        )
    ),
]


def _format_time(value: datetime) -> str:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")


def _format_micro_time(value: datetime) -> str:
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z")


# The API server stores a number that was given for an int-or-string as that number.
NUMBER_AS_TEXT = BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)

INT32_MAX = 2**31 - 1
Int32 = Annotated[int, Field(json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(json_schema_extra={"format": "int64"})]

# As metav1.Time and metav1.MicroTime write them.
Time = Annotated[datetime, PlainSerializer(_format_time, return_type=str)]
MicroTime = Annotated[datetime, PlainSerializer(_format_micro_time, return_type=str)]


class JsonObject(BaseModel):
    """Base of every type: immutable, camelCase in JSON.

    Unknown fields are ignored, so that objects of a newer version stay readable. Errors quote no
    values, which may be secrets: programs log errors. A type's validator is built when it is first
    used: a program uses a part of the types only, and building those of all would delay its start.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        defer_build=True,
    )

    def to_json(self) -> dict[str, Any]:
        """The JSON object as a dict, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def build_all() -> None:
    """Build the validators of all imported types now, for processes that are to share them."""
    # Level by level: most types come after those of their fields, which are then built already.
    types = JsonObject.__subclasses__()
    for one in types:
        one.model_rebuild()
        types += one.__subclasses__()


# Key, namespace and name: see ModelIdentity.
Identity = tuple[str, str, str]


def is_falsy(value: object) -> bool:
    """Whether a field is left out of JSON because it has its default. It keeps long lists short."""
    return not value


class ModelIdentity(JsonObject):
    """Identity of a model: its cache and its key.

    A cache that was deleted and created again with another URI has another key, and so another
    identity.
    """

    name: str = Field(description="Name of the cache.", max_length=253)
    namespace: str = Field(
        default="",
        description="Namespace of the cache; empty for a LocalModelCache.",
        max_length=63,
        exclude_if=is_falsy,
    )
    key: str = Field(description="Name of the model's folder below models/.", max_length=16)

    @property
    def identity(self) -> Identity:
        """Key, namespace and name."""
        return (self.key, self.namespace, self.name)


class ManagedFields(JsonObject):
    """The time of a metav1.ManagedFieldsEntry: when a client last wrote fields of the object."""

    time: Time | None = None


class ObjectMeta(JsonObject):
    """The fields of metav1.ObjectMeta that hooks and agent read."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    managed_fields: tuple[ManagedFields, ...] = ()

    @property
    def known_age(self) -> timedelta:
        """Age of the object when it was last written, by the API server's clock.

        timedelta.max for an object that does not come from an API server.
        """
        if self.creation_timestamp is None:
            return timedelta.max
        times = (entry.time for entry in self.managed_fields if entry.time is not None)
        return max(times, default=self.creation_timestamp) - self.creation_timestamp


class Resource(JsonObject):
    """Base of the kinds: the metadata of a stored object."""

    metadata: ObjectMeta

    @property
    def deleting(self) -> bool:
        """Whether the object is being deleted and waits for its finalizers."""
        return self.metadata.deletion_timestamp is not None


# Kubernetes' own bound of a condition's message.
MESSAGE_MAX = 32_768


class Condition(JsonObject):
    """A metav1.Condition: one aspect of the state of an object."""

    type: str = Field(description="Name of the condition.", max_length=316)
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the condition holds.")
    observed_generation: int | None = Field(
        default=None,
        description="The metadata.generation that the condition was computed for.",
        ge=0,
    )
    last_transition_time: Time = Field(description="When the status of the condition last changed.")
    reason: str = Field(
        description="Reason for the status, one CamelCase word for programs.",
        min_length=1,
        max_length=1024,
    )
    message: str = Field(
        description="Explanation for people: what is wrong, where, and what to do.",
        max_length=MESSAGE_MAX,
    )


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        description="Conditions of the object, one for each type.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    ),
]

ObservedGeneration = Annotated[
    int | None,
    Field(description="The metadata.generation that this status was computed for."),
]
