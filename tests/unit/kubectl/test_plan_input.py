"""What a plan does where the API server refuses to check a document."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest

from deploy.kube.errors import ForbiddenError, InvalidError
from deploy.kubectl.plan import Action
from deploy.kubectl.plan_input import DEFAULT_SETTINGS, changes_of, read_settings
from hooks.settings import VolumeScope

if TYPE_CHECKING:
    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import KubeObject

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

    def find(self, *_: object) -> KubeObject | None:
        return self.found

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
