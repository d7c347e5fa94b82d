"""The component hooks-token: the hooks answer Metacontroller, and nobody without the token."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
import requests

from deploy.kube.errors import ForbiddenError
from deploy.kube.kinds import GROUPS, PLACEMENTS, PODS, SECRETS
from deploy.local import identities, overlay, product
from deploy.local.cluster import Cluster
from deploy.local.layout import CHECKOUT
from deploy.local.manifests import apply_all, parse
from deploy.local.users import AGENT, HOOKS, ServiceAccount
from deploy.local.waiting import wait_until
from hooks.access import TOKEN_FILE_VARIABLE
from tests.e2e import audit
from tests.e2e.conftest import METACONTROLLERS
from tests.e2e.world import an_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMPONENT = CHECKOUT / "deploy/components/hooks-token"
SECONDS = 60.0
SECRET = "localmodel-hooks-token"
NAMESPACE = "localmodel"


@pytest.fixture(params=METACONTROLLERS)
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Cluster, str]]:
    """A cluster whose hooks ask for a token, and the token."""
    cluster = Cluster(tmp_path / "local")
    cluster.up(1, metacontroller=request.param, run_agents=False)
    try:
        token = secrets.token_hex(32)
        file = tmp_path / "token"
        file.write_text(token)
        metadata = {"stringData": {"token": token}}
        cluster.api.create(an_object(SECRETS, SECRET, NAMESPACE, **metadata))
        environment = overlay.hooks_environment(CHECKOUT, overlay.BASE)
        hooks = product.hooks(cluster.state.ports, environment | {TOKEN_FILE_VARIABLE: str(file)})
        before = cluster.pid(product.HOOKS)
        cluster.run(product.HOOKS, hooks)
        cluster.wait_for_pid(product.HOOKS, after=before)
        rendered = cluster.kubectl("kustomize", str(COMPONENT / "controllers"), check=True).stdout
        apply_all(cluster.api, parse(rendered, hooks_url=cluster.hooks_url))
        yield cluster, token
        audit.check(cluster)
    finally:
        cluster.down()


def _post(cluster: Cluster, headers: dict[str, str]) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        url = f"{cluster.hooks_url}/nodegroups/customize"
        return session.post(url, data=b"{}", headers=headers, timeout=10)


def _answers(cluster: Cluster) -> bool:
    try:
        return _post(cluster, {}).status_code > 0
    except requests.ConnectionError:
        return False


def test_the_hooks_answer_metacontroller_and_nobody_without_the_token(
    guarded: tuple[Cluster, str], tmp_path: Path
) -> None:
    cluster, token = guarded
    wait_until(lambda: _answers(cluster), "the hooks with a token", seconds=SECONDS)
    for headers in ({}, {"Authorization": "Bearer other"}):
        assert _post(cluster, headers).status_code == 401
    # The token is right, and the request is not one of Metacontroller.
    assert _post(cluster, {"Authorization": f"Bearer {token}"}).status_code == 422

    spec = {"nodeSelector": {"pool": "gpu"}, "storageLimit": "10Gi"}
    cluster.api.create(an_object(GROUPS, "guarded", spec=spec))
    wait_until(
        lambda: cluster.api.find(PLACEMENTS, "guarded"),
        "the plan, which Metacontroller makes by the hooks' answer",
        seconds=SECONDS,
    )
    # Neither localmodel's own pods nor any other pod of the namespaces reads the token.
    others = [ServiceAccount(namespace, "default") for namespace in (NAMESPACE, "default")]
    for account in (AGENT, HOOKS, *others):
        path = tmp_path / f"{account.namespace}-{account.account}"
        authority = cluster.layout.certificate
        identities.write(path, cluster.api, account, authority=authority, pod="reader")
        reader = audit.as_user(path)
        with pytest.raises(ForbiddenError, match="cannot get resource"):
            reader.get(SECRETS, SECRET, NAMESPACE)
        with pytest.raises(ForbiddenError, match="cannot list resource"):
            reader.list(SECRETS, NAMESPACE)
        cluster.api.delete(PODS, "reader", account.namespace, grace_seconds=0)
