"""The models file of `run --models`, which lists the models that the disk shall hold.

    models:
      - uri: hf://org/model
        name: chat            # shown to people; default: from the URI
        hash: sha256:...      # the required hash
        priority: 10          # models with a higher priority are downloaded first
        size: 140Gi           # shown to people

The file may also hold LocalModelCache documents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError, field_validator

from crds.base import JsonObject
from crds.models import ModelHash
from crds.node import LocalModel
from crds.quantity import parse_quantity
from crds.quantity_types import Quantity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_CACHE_KIND = "LocalModelCache"
_LIST_KINDS = {"List", "LocalModelCacheList"}


class ModelsError(Exception):
    """The models file is invalid. The message says why."""


class _Entry(JsonObject):
    model_config = JsonObject.model_config | {"extra": "forbid"}

    uri: str = Field(min_length=1, max_length=2048, pattern="^[A-Za-z][A-Za-z0-9+.-]*://.")
    name: str | None = Field(default=None, min_length=1, max_length=253)
    hash: ModelHash | None = None
    priority: int = Field(default=0, ge=-1_000_000, le=1_000_000)
    size: Quantity | None = None

    @field_validator("size")
    @classmethod
    def _is_above_zero(cls, value: str | None) -> str | None:
        if value is not None and parse_quantity(value) < 1:
            raise ValueError("must be above zero; leave it out if it is not known")
        return value


class _Models(JsonObject):
    model_config = JsonObject.model_config | {"extra": "forbid"}

    models: tuple[_Entry, ...]


def read_models(path: Path) -> tuple[LocalModel, ...]:
    """The models of a file, highest priority first. Raises ModelsError."""
    try:
        documents = [found for found in yaml.safe_load_all(path.read_text()) if found is not None]
    except OSError as error:
        raise ModelsError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        # ValueError: no UTF-8, or a date that does not exist.
        words = " ".join(str(error).split())
        raise ModelsError(f"{path} is not YAML: {words}") from None
    if not documents:
        # An editor may truncate the file before it writes: an empty file must not remove models.
        raise ModelsError(f"{path} is empty: for no models, write `models: []`")
    try:
        entries = [entry for document in documents for entry in _entries(document)]
        models = [_model(entry) for entry in entries]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "a document"
        raise ModelsError(f"{path}: {where}: {first['msg']}") from None
    except ModelsError as error:
        raise ModelsError(f"{path}: {error}") from None
    return tuple(sorted(_with_unique_names(models), key=lambda model: -model.priority))


def _entries(document: object) -> Iterator[_Entry]:
    if not isinstance(document, dict):
        raise ModelsError("a document is not a mapping such as `models: [...]`")
    kind = document.get("kind")
    if kind in _LIST_KINDS:
        items = document.get("items") or ()
        if not isinstance(items, list | tuple):
            raise ModelsError("the items of a list are not a sequence such as `items: [...]`")
        for item in items:
            yield from _entries(item)
    elif kind == _CACHE_KIND:
        yield _entry_of_cache(document)
    elif kind is not None:
        raise ModelsError(f"a document has the kind {kind!r}, and only {_CACHE_KIND} is supported")
    else:
        yield from _Models.model_validate(document).models


def _entry_of_cache(document: Mapping[str, Any]) -> _Entry:
    metadata, spec = document.get("metadata"), document.get("spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        raise ModelsError(f"a {_CACHE_KIND} has no metadata or no spec")
    if spec.get("storage") or spec.get("serviceAccountName"):
        raise ModelsError(
            f"the {_CACHE_KIND} {metadata.get('name')!r} names credentials of a cluster: without "
            "Kubernetes credentials come from the environment, so remove storage and "
            "serviceAccountName"
        )
    found = {
        "uri": spec.get("sourceModelUri"),
        "name": metadata.get("name"),
        "hash": spec.get("hash"),
        "priority": spec.get("priority", 0),
        "size": spec.get("modelSize"),
    }
    return _Entry.model_validate(found)


def _model(entry: _Entry) -> LocalModel:
    return LocalModel(
        model_name=entry.name or _short_name(entry.uri),
        source_model_uri=entry.uri,
        model_size=entry.size or "1",
        node_group="",
        priority=entry.priority,
        hash=entry.hash,
    )


def _short_name(uri: str) -> str:
    """The last segment of the URI's path, to show to people."""
    plain = uri.partition("?")[0].partition("#")[0].rstrip("/")
    return plain.rpartition("/")[2][-200:] or uri.partition(":")[0]


def _with_unique_names(models: list[LocalModel]) -> Iterator[LocalModel]:
    """The models; where several keys share a name, each name ends with the start of its key."""
    keys: dict[str, set[str]] = {}
    for model in models:
        keys.setdefault(model.model_name, set()).add(model.key)
    for model in models:
        if len(keys[model.model_name]) == 1:
            yield model
        else:
            yield model.model_copy(update={"model_name": f"{model.model_name}-{model.key[:6]}"})
