"""What a plan takes a document for, and what it does where the API server refuses to check it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml

from deploy.kube.errors import ForbiddenError, InvalidError
from deploy.kubectl.applying import applied
from deploy.kubectl.plan import Action
from deploy.kubectl.plan_input import DEFAULT_SETTINGS, changes_of, read_settings
from deploy.kubectl.session import Session
from hooks.settings import VolumeScope
from tests.unit.agent.api_server import write_kubeconfig

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import KubeObject

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NOW = datetime(2026, 8, 1, tzinfo=UTC)
NO_RIGHT = (
    'localmodelcaches.serving.kserve.io is forbidden: User "eve" cannot create resource '
    '"localmodelcaches" in API group "serving.kserve.io" at the cluster scope'
)
POLICY = (
    'localmodelcaches.serving.kserve.io "a" is forbidden: ValidatingAdmissionPolicy '
    "'importance' with binding 'importance' denied request: it cannot be pinned here"
)


class Refusing:
    """A client whose API server has no such object, and refuses to check one."""

    def __init__(self, error: Exception, found: KubeObject | None = None) -> None:
        self.error, self.found = error, found

    def find(self, *_: object) -> None:
        return None

    def find_all(self, *_: object, **__: object) -> tuple[KubeObject, ...]:
        return (self.found,) if self.found else ()

    def create(self, *_: object, **__: object) -> KubeObject:
        raise self.error


def document(**spec: Any) -> KubeObject:
    head = {"sourceModelUri": "s3://b/m", "modelSize": "1Gi", "nodeGroup": "gpus"}
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelCache",
        "metadata": {"name": "a"},
        "spec": head | spec,
    }


def planned(error: Exception, **spec: Any) -> tuple[Any, list[str]]:
    client = cast("KubeClient", Refusing(error))
    found = changes_of(client, [document(**spec)], namespace="x", delete=False, now=NOW)
    ((change,), notes) = found
    return change, notes


def test_the_types_check_what_the_user_may_not_create() -> None:
    change, notes = planned(ForbiddenError("creating", NO_RIGHT, 403))
    assert (change.action, change.refusal, change.namespace) == (Action.CREATE, "", "")
    assert change.obj["metadata"]["creationTimestamp"] == "2026-08-01T00:00:00Z"
    assert notes == [f"the API server did not check LocalModelCache a: {NO_RIGHT}"]
    change, _ = planned(ForbiddenError("creating", NO_RIGHT, 403), modelSize="lots")
    assert change.refusal.startswith("spec.modelSize: ")


@pytest.mark.parametrize("error", [ForbiddenError("c", POLICY, 403), InvalidError("c", "bad", 422)])
def test_what_the_api_server_refuses_is_refused(error: ForbiddenError | InvalidError) -> None:
    change, notes = planned(error)
    assert (change.refusal, notes) == (error.message, [])


def test_the_settings_are_those_of_the_running_hooks() -> None:
    environment = [{"name": "LOCALMODEL_VOLUMES", "value": "root"}]
    hooks = {"spec": {"template": {"spec": {"containers": [{"env": environment}]}}}}
    client = cast("KubeClient", Refusing(AssertionError(), hooks))
    settings, notes = read_settings(client)
    assert (settings.volumes, notes) == (VolumeScope.ROOT, [])
    settings, notes = read_settings(cast("KubeClient", Refusing(AssertionError())))
    assert settings == DEFAULT_SETTINGS
    assert "are taken to have their default settings" in notes[0]


def stored(last: dict[str, Any] | None = None, **spec: Any) -> KubeObject:
    made = document(**spec)
    made["metadata"]["managedFields"] = []
    if last is not None:
        text = json.dumps({"metadata": {"labels": {"old": "x"}}, "spec": last})
        made["metadata"]["annotations"] = {LAST_APPLIED: text}
        made["metadata"]["labels"] = {"old": "x", "other": "y"}
    return made


def test_an_apply_keeps_what_something_else_has_set() -> None:
    pinned = stored({"priority": 5, "nodeGroup": "gpus"}, retention="Pinned", priority=5)
    after = applied(pinned, document(modelSize="2Gi"))
    assert after["spec"] == document(modelSize="2Gi", retention="Pinned")["spec"]
    assert after["metadata"]["labels"] == {"other": "y"}
    assert LAST_APPLIED in after["metadata"]["annotations"]
    assert "managedFields" not in after["metadata"]
    # Made by create, or by another program: nothing goes but what the document sets to null.
    made = stored(retention="Pinned", namespaceSelector={"matchLabels": {"a": "1", "b": "2"}})
    after = applied(made, document(retention=None, namespaceSelector={"matchLabels": {"a": "3"}}))
    assert (
        after["spec"] == document(namespaceSelector={"matchLabels": {"a": "3", "b": "2"}})["spec"]
    )


def test_an_apply_by_the_server_removes_what_no_other_manager_has_set() -> None:
    def entry(manager: str, **spec: Any) -> dict[str, Any]:
        fields = {f"f:{name}": value for name, value in spec.items()}
        return {"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": fields}}

    made = stored(retention="Pinned", priority=5, eviction={"a": 1, "b": 2})
    made["metadata"]["managedFields"] = [
        entry("kubectl", retention={}, priority={}, eviction={"f:a": {}, "f:b": {}}),
        entry("localmodel-kubectl", retention={}, eviction={"f:b": {}}),
    ]
    after = applied(made, document(eviction={}))
    assert after["spec"] == document(retention="Pinned", eviction={"b": 2})["spec"]


def test_the_namespace_is_that_of_the_context(tmp_path: Path) -> None:
    contexts = [
        {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "team"}},
        {"name": "y", "context": {"cluster": "c", "user": "u"}},
    ]
    config = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"contexts": contexts}))
    assert Session(str(config)).usual_namespace() == "team"
    assert Session(str(config), context="y").usual_namespace() == "default"
    assert Session(str(config), namespace="other").usual_namespace() == "other"
