"""The key localModel of KServe's ConfigMap inferenceservice-config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hooks.envelope import BadRequest, RelatedRule, core_objects

if TYPE_CHECKING:
    from hooks.envelope import RawObjects
    from hooks.settings import ConfigMapName

KEY = "localModel"


class KServeConfig(BaseModel):
    """The settings that hooks use. Without the ConfigMap or the key, KServe's defaults hold."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    volumes_disabled: bool = Field(default=False, alias="disableVolumeManagement")


def config_rules(name: ConfigMapName | None) -> list[RelatedRule]:
    """The rule for the ConfigMap, if one is configured."""
    if name is None:
        return []
    return [
        RelatedRule(
            api_version="v1", resource="configmaps", namespace=name.namespace, names=(name.name,)
        )
    ]


def read_config(name: ConfigMapName | None, related: RawObjects) -> KServeConfig:
    """The settings. Raises BadRequest for an invalid ConfigMap, whose settings are unknown."""
    if name is None:
        return KServeConfig()
    config_map = core_objects("ConfigMap", related).get(str(name), {})
    text = (config_map.get("data") or {}).get(KEY)
    if text is None:
        return KServeConfig()
    try:
        return KServeConfig.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise BadRequest(
            f"cannot read the key {KEY} of ConfigMap {name}, which must be a JSON object with "
            f"disableVolumeManagement true, false or absent: {error}"
        ) from error
