"""Credentials that a cache names, with the agents' shipped rights and a real S3 server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agent.structs.credentials import DEFAULT_NAMESPACE
from deploy.local.users import AGENT
from tests.content import weights

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.world import World

WEIGHTS = weights(100_001)


def _upload(world: World, folder: Path, prefix: str) -> str:
    (folder / "weights").write_bytes(WEIGHTS)
    return world.s3.upload(folder, prefix)


def _keys(world: World, secret_key: str) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": world.s3.access_key, "AWS_SECRET_ACCESS_KEY": secret_key + "\n"}


def _check_denied(world: World, cache: str, node: str, uri: str, text: str) -> None:
    condition = world.wait_condition(cache, "DownloadFailed")
    assert "Denied" in condition["message"]
    message = world.report(node, uri)["message"]
    assert text in message
    assert world.s3.secret_key not in message
    assert not world.published(node, uri)


def test_secrets_of_a_service_account_and_a_wrong_one_that_is_corrected(
    world: World, tmp_path: Path
) -> None:
    uri = _upload(world, tmp_path, "attached/model")
    host = world.s3.endpoint.removeprefix("http://")
    world.node("node-1", "attached")
    world.group("attached")
    # The agent's own key, in its environment, would do: a wrong one that is named must not.
    world.cache("attached", uri, "attached", serviceAccountName="attached")
    _check_denied(
        world, "attached", "node-1", uri, f"no ServiceAccount {DEFAULT_NAMESPACE}/attached"
    )

    world.secret("attached", _keys(world, "wrong"), endpoint=host, usehttps="0")
    world.service_account("attached", "attached")
    world.until(
        lambda: "SignatureDoesNotMatch" in world.report("node-1", uri).get("message", ""),
        "the wrong key to be refused by the store",
    )

    world.secret("attached", _keys(world, world.s3.secret_key), endpoint=host, usehttps="0")
    world.wait_ready("attached", 1)
    assert (world.copy("node-1", uri) / "weights").read_bytes() == WEIGHTS
    world.remove_caches("attached")


def test_an_entry_of_the_storage_config_with_parameters(world: World, tmp_path: Path) -> None:
    uri = _upload(world, tmp_path, "stored/model")
    entry = {
        "type": "s3",
        "access_key_id": world.s3.access_key,
        "secret_access_key": world.s3.secret_key,
        "endpoint_url": "http://127.0.0.1:1",
        "bucket": "models",
    }
    world.secret("storage-config", {"other": "{}"})
    world.node("node-2", "stored")
    world.group("stored")
    parameters = {"endpoint_url": world.s3.endpoint}
    world.cache("stored", uri, "stored", storage={"key": "mine", "parameters": parameters})
    _check_denied(world, "stored", "node-2", uri, "storage-config has no key 'mine'")

    world.secret("storage-config", {"mine": json.dumps(entry)})
    world.wait_ready("stored", 1)
    assert (world.copy("node-2", uri) / "weights").read_bytes() == WEIGHTS
    world.remove_caches("stored")


def test_the_agents_read_secrets_by_name_in_one_namespace(world: World) -> None:
    def may(verb: str, what: str, *scope: str) -> str:
        done = world.cluster.kubectl("auth", "can-i", verb, what, *scope, "--as", AGENT.name)
        return done.stdout.strip()

    assert may("get", "secrets", "-n", DEFAULT_NAMESPACE) == "yes"
    assert may("get", "serviceaccounts", "-n", DEFAULT_NAMESPACE) == "yes"
    for verb in ("list", "watch", "create", "update", "patch", "delete"):
        assert may(verb, "secrets", "-n", DEFAULT_NAMESPACE) == "no"
    for namespace in ("default", "kube-system", "localmodel"):
        assert may("get", "secrets", "-n", namespace) == "no"
    assert may("get", "secrets", "--all-namespaces") == "no"
    # KServe's agents change jobs; these have none, and no right beyond their own status and events,
    # and to annotate pods: a policy of the overlays refuses every other patch of a pod.
    for what in ("jobs.batch", "pods", "persistentvolumeclaims", "nodes", "localmodelcaches"):
        for verb in ("create", "update", "patch", "delete"):
            expected = "yes" if (verb, what) == ("patch", "pods") else "no"
            assert may(verb, what, "--all-namespaces") == expected
