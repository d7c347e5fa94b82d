from __future__ import annotations

import yaml

from crds.quantity import parse_quantity
from deploy.local.demo import manifests
from deploy.local.demo.pressure import FIRST, MODEL_BYTES, NAMES


def test_three_of_the_four_models_fit() -> None:
    limit = parse_quantity(yaml.safe_load(manifests.SMALL_GROUP)["spec"]["storageLimit"])
    declared = yaml.safe_load(manifests.small_cache("red", "s3://models/red"))["spec"]["modelSize"]
    assert parse_quantity(declared) == MODEL_BYTES
    assert len(FIRST) * MODEL_BYTES <= limit < len(NAMES) * MODEL_BYTES


def test_a_pod_mounts_the_claim_of_its_cache() -> None:
    group = yaml.safe_load(manifests.SMALL_GROUP)["metadata"]["name"]
    spec = yaml.safe_load(manifests.pod("web", "node-1", "red"))["spec"]
    (volume,) = spec["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == f"red-{group}"
    assert spec["containers"][0]["volumeMounts"][0]["name"] == volume["name"]
    assert spec["nodeName"] == "node-1"
