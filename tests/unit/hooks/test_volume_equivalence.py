"""Observed and desired volumes are compared by meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds.nodegroup import LocalModelNodeGroup
from crds.volumes import NodeSelectorTerm
from hooks.observed import Cache, CacheSpec, Metadata
from hooks.selectors import selects
from hooks.volumes import is_outdated, make_volume, shows_root, volume_name_of

if TYPE_CHECKING:
    from hooks.envelope import Object

LABEL = {"key": "localmodelnodegroup.serving.kserve.io/gpu", "operator": "Exists"}


def _cache() -> Cache:
    return Cache(
        kind="LocalModelCache",
        api_version="serving.kserve.io/v1alpha1",
        metadata=Metadata(name="llama", uid="u"),
        spec=CacheSpec(source_model_uri="s3://b/m", model_size="1Gi", node_group="gpu"),
    )


def _group(terms: list[Object], path: str = "/models", **volume: Any) -> LocalModelNodeGroup:
    return LocalModelNodeGroup.model_validate(
        {
            "metadata": {"name": "gpu"},
            "spec": {
                "storageLimit": "1Gi",
                "persistentVolumeSpec": {
                    "local": {"path": path},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
                }
                | volume,
                "persistentVolumeClaimSpec": {},
            },
        }
    )


def _volume(terms: list[Object], path: str = "/models", **volume: Any) -> Object:
    group = _group(terms, path, **volume)
    return make_volume(_cache(), group, "team-a", "/models", name="llama-gpu-team-a")


def _terms(volume: Object) -> list[Object]:
    terms: list[Object] = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    return terms


def _stored(value: Any) -> Any:
    """A volume as the API server returns it: without empty lists."""
    if isinstance(value, dict):
        return {k: _stored(v) for k, v in value.items() if v not in ([], {}, "", None)}
    return [_stored(one) for one in value] if isinstance(value, list) else value


EXISTS = {"key": "pool", "operator": "Exists"}


@pytest.mark.parametrize(
    "terms",
    [
        [{"matchExpressions": [EXISTS | {"values": []}]}],
        [{"matchExpressions": [EXISTS], "matchFields": []}],
        [{"matchExpressions": [EXISTS]}, {"matchExpressions": [], "matchFields": []}],
    ],
)
def test_what_says_nothing_makes_no_volume_old(terms: list[Object]) -> None:
    assert not is_outdated(_volume(terms), _stored(_volume([{"matchExpressions": [EXISTS]}])))


def test_a_path_is_the_same_however_its_slashes_are_written() -> None:
    terms: list[Object] = [{"matchExpressions": [EXISTS]}]
    for path in ("/models/", "//models", "/models//", "/./models"):
        assert not is_outdated(_volume(terms, path), _volume(terms))
    assert is_outdated(_volume(terms, "/models/a"), _volume(terms))


def test_neither_capacity_nor_class_makes_a_volume_old() -> None:
    terms: list[Object] = [{"matchExpressions": [EXISTS]}]
    there = _volume(terms, capacity={"storage": "1073741824"})
    there["spec"] |= {"storageClassName": "another", "capacity": {"storage": "2Gi"}}
    assert not is_outdated(_volume(terms, capacity={"storage": "1Gi"}), there)


_KEYS = st.sampled_from(["pool", "zone", "gpus"])
_VALUES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3)
_LABELS = st.one_of(
    st.builds(
        lambda k, o, v: {"key": k, "operator": o, "values": v},
        _KEYS,
        st.sampled_from(["In", "NotIn"]),
        _VALUES,
    ),
    st.builds(
        lambda k, o: {"key": k, "operator": o, "values": []},
        _KEYS,
        st.sampled_from(["Exists", "DoesNotExist"]),
    ),
)
_NAMES = st.builds(
    lambda o, v: {"key": "metadata.name", "operator": o, "values": v},
    st.sampled_from(["In", "NotIn"]),
    _VALUES,
)
_TERMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "matchExpressions": st.lists(_LABELS, max_size=3),
            "matchFields": st.lists(_NAMES, max_size=2),
        },
    ),
    min_size=1,
    max_size=3,
)
_NODES = st.tuples(
    st.sampled_from(["a", "b", "c", "d"]),
    st.dictionaries(_KEYS, st.sampled_from(["a", "b", "d"])),
)


@given(terms=_TERMS, random=st.randoms(use_true_random=False))
def test_a_volume_that_was_stored_is_not_old(terms: list[Object], random: Any) -> None:
    there = _stored(_volume(terms))
    assert not is_outdated(_volume(terms), there)
    for term in terms:
        for part in term.values():
            random.shuffle(part)
            for one in part:
                random.shuffle(one["values"])
    random.shuffle(terms)
    assert not is_outdated(_volume(terms), there)


@given(one=_TERMS, other=_TERMS, node=_NODES)
def test_volumes_that_are_the_same_let_the_same_nodes_in(
    one: list[Object], other: list[Object], node: tuple[str, dict[str, str]]
) -> None:
    def lets_in(terms: list[Object]) -> bool:
        return selects([NodeSelectorTerm.model_validate(term) for term in terms], *node)

    # Several names are not in the volume: it requires only the label.
    names = [field["values"] for term in (*one, *other) for field in term.get("matchFields", ())]
    by_label = any(len(values) != 1 for values in names)
    if not by_label and not is_outdated(_volume(one), _stored(_volume(other))):
        assert lets_in(one) == lets_in(other)


@given(terms=_TERMS, node=_NODES)
def test_a_volume_lets_in_the_nodes_of_its_group_and_no_others(
    terms: list[Object], node: tuple[str, dict[str, str]]
) -> None:
    """Kubernetes' own check of a volume: by the node's labels, without its name."""
    name, labels = node
    parsed = [NodeSelectorTerm.model_validate(term) for term in terms]
    in_group = selects(parsed, name, labels)
    if in_group and any(term.match_fields for term in parsed):
        labels = labels | {LABEL["key"]: ""}
    asked = [
        NodeSelectorTerm.model_validate(term | {"matchFields": []})
        for term in _terms(_volume(terms))
    ]
    assert selects(asked, "", labels) == in_group


@pytest.mark.parametrize(
    ("operator", "values"), [("In", ["a", "b"]), ("NotIn", ["a", "b"]), ("Exists", [])]
)
def test_names_that_the_api_server_takes_in_no_volume_are_left_to_the_label(
    operator: str, values: list[str]
) -> None:
    """It accepts one name in each expression; the label is that of the group's nodes."""
    names = {"key": "metadata.name", "operator": operator, "values": values}
    expression = {"key": "pool", "operator": "Exists"}
    terms: list[Object] = [{"matchFields": [names], "matchExpressions": [expression]}]
    assert _terms(_volume(terms)) == [{"matchExpressions": [expression, LABEL]}]


def test_volumes_that_ask_for_no_label_of_ours_stay_as_they_are() -> None:
    """Volumes of KServe, and older ones of ours."""
    terms: list[Object] = [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}
    ]
    volume = _volume(terms)
    assert _terms(volume) == [terms[0] | {"matchExpressions": [LABEL]}]
    there = _volume(terms)
    there["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"] = terms
    assert not is_outdated(volume, there)


def _claim(volume: str, phase: str = "Bound") -> Object:
    return {"spec": {"volumeName": volume}, "status": {"phase": phase}}


def _there(name: str, phase: str = "Bound", namespace: str = "team") -> dict[str, Object]:
    ref = {"namespace": namespace, "name": "llama-gpu"}
    return {name: {"spec": {"claimRef": ref}, "status": {"phase": phase}}}


PLAIN = "llama-gpu-team"
OWN = "llama-gpu-team-f53a9788"


@pytest.mark.parametrize(
    ("claim", "volumes", "by_name", "expected"),
    [
        (None, {}, False, PLAIN),
        # KServe may have left a volume with its name.
        (None, {}, True, OWN),
        (None, _there(PLAIN, "Released"), True, OWN),
        # A bound volume keeps its name, also if the group has changed or is deleted.
        (_claim(PLAIN), {}, True, PLAIN),
        (_claim(OWN), {}, False, OWN),
        (None, _there(PLAIN), True, PLAIN),
        (None, _there(OWN), False, OWN),
        (_claim(PLAIN, "Pending"), _there(PLAIN, "Available"), True, PLAIN),
        # A claim that names the volume of another claim gets its own volume.
        (_claim(PLAIN, "Pending"), _there(PLAIN, namespace="other"), True, OWN),
    ],
)
def test_the_name_of_a_volume(
    claim: Object | None, volumes: dict[str, Object], by_name: bool, expected: str
) -> None:
    found = volume_name_of("llama", "gpu", "team", claim, volumes, by_name=by_name)
    assert found == expected


@pytest.mark.parametrize(
    ("wanted", "there", "root", "outdated"),
    [
        ("/models", "/models", False, False),
        ("/models/volumes/0123", "/models/volumes/0123/", False, False),
        # A volume of the root shows the model too, and stays.
        ("/models/volumes/0123", "/models", True, False),
        ("/volumes/0123", "/", True, False),
        ("/models/volumes/0123", "/other", False, True),
        ("/models/volumes/0123", "/models/volumes/4567", False, True),
        # Where the agents show the root alone, a volume of one model leads nowhere.
        ("/models", "/models/volumes/0123", False, True),
    ],
)
def test_a_volume_that_shows_all_models_is_not_outdated(
    wanted: str, there: str, *, root: bool, outdated: bool
) -> None:
    terms = [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
    desired, observed = _volume(terms, wanted), _volume(terms, there)
    assert shows_root(desired, observed) is root
    assert is_outdated(desired, observed) is outdated
