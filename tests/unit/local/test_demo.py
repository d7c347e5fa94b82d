from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from crds.quantity import parse_quantity
from deploy.local.cluster import Cluster
from deploy.local.console import silent
from deploy.local.demo import manifests, picture, pods
from deploy.local.demo.files import digests
from deploy.local.demo.pressure import FIRST, MODEL_BYTES, NAMES
from deploy.local.demo.pressure import NODES as UNDER_PRESSURE
from deploy.local.demo.story import Demo
from deploy.local.real import packages

if TYPE_CHECKING:
    from pathlib import Path

MODEL_LABEL = "localmodel.serving.kserve.io/model"


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


def test_the_pod_of_the_real_node_names_its_model_and_nothing_more() -> None:
    cache = yaml.safe_load(manifests.cache("s3://models/minilm"))
    name = cache["metadata"]["name"]
    assert f"{name}-{cache['spec']['nodeGroup']}" == manifests.CLAIM
    pod = yaml.safe_load(manifests.server("server", "real-1"))
    assert pod["metadata"]["labels"] == {MODEL_LABEL: name}
    spec = pod["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": "real-1"}
    (container,) = spec["containers"]
    assert "volumes" not in spec
    assert "volumeMounts" not in container
    # The script is one argument, whose lines stay apart.
    (script,) = container["args"]
    assert script.splitlines()[0] == "echo started"
    assert script.splitlines()[1].endswith(f"echo {manifests.READ}")


def test_digests_are_by_path(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "empty").touch()
    of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digests(tmp_path) == {"sub/empty": of_nothing}


def test_the_demo_says_how_to_get_what_a_real_node_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda _name, **_options: None)
    monkeypatch.setattr(packages, "CNI_FOLDERS", (tmp_path,))
    found = pods.missing(tmp_path)
    assert found.startswith("real nodes need packages that are not installed: busybox-static, ")
    assert "; apt-get update && apt-get install " in found
    assert "\n" not in found
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    # Not what `make up` says to do instead: the demo does it by itself.
    assert pods.missing(tmp_path).endswith("; run the command as root")


@pytest.mark.parametrize(
    ("missing", "third"), [("", pods.NODE), ("real nodes need root", "node-3")]
)
def test_the_demo_has_three_nodes_of_which_one_is_real_where_it_can(
    tmp_path: Path, missing: str, third: str
) -> None:
    demo = Demo(Cluster(tmp_path), silent(), tmp_path, missing=missing)
    assert demo.nodes == (*UNDER_PRESSURE, third)


def test_the_picture_has_the_scenes_and_checks_of_a_demo_and_nothing_from_the_network() -> None:
    lines = [
        "▶ A scene",
        "  $ kubectl get lmc",
        "    minilm   True",
        "  ✓ a check",
        "▶ Stop everything",
    ]
    assert [line for line in lines if picture.shown(line)] == ["▶ A scene", "  ✓ a check"]
    svg = picture.draw(lines)
    words = "".join(re.findall(r">([^<]*)</text>", svg)).replace("&#160;", " ")
    assert "A scene" in words
    assert "kubectl" not in words
    assert "url(" not in svg.replace("url(#", "")
