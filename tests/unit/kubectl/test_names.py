"""The names of models and nodes in arguments."""

from __future__ import annotations

import pytest

from deploy.kubectl.names import UnknownNameError, cache_of, node_of
from tests.unit.kubectl.objects import cache, cluster

SNAPSHOT = cluster(
    cache(namespace="team"),
    cache(name="phi", namespace="team"),
    cache(name="twin", namespace="a"),
    cache(name="twin", namespace="b"),
)


@pytest.mark.parametrize(
    ("argument", "namespace", "found"),
    [
        ("llama", "", ("", "llama")),
        ("llama", "team", ("team", "llama")),
        ("team/llama", "", ("team", "llama")),
        ("team/llama", "other", ("team", "llama")),
        ("phi", "", ("team", "phi")),
    ],
)
def test_a_cache(argument: str, namespace: str, found: tuple[str, str]) -> None:
    assert cache_of(SNAPSHOT, argument, namespace) == found


@pytest.mark.parametrize(
    ("argument", "namespace", "words"),
    [
        ("lama", "", "did you mean llama"),
        ("team/lama", "", "did you mean team/llama"),
        ("llama", "tem", "no LocalModelNamespaceCache tem/llama; did you mean team/llama"),
        ("twin", "", "several caches have the name twin: name one of a/twin, b/twin"),
        ("xyz", "", "kubectl localmodel status lists all"),
    ],
)
def test_a_name_that_is_unknown(argument: str, namespace: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        cache_of(SNAPSHOT, argument, namespace)


def test_a_node() -> None:
    assert node_of(SNAPSHOT, "node-1") == "node-1"
    with pytest.raises(UnknownNameError, match="no node node1; did you mean node-"):
        node_of(SNAPSHOT, "node1")
