from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from crds.naming import claim_name
from hooks.naming import (
    LABEL_LENGTH_MAX,
    group_label,
    is_warm_label,
    kserve_volume_name,
    label_value,
    volume_name,
    warm_label,
)

NAMES = st.from_regex(r"\A[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
NAMESPACES = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


def test_kserves_names() -> None:
    assert claim_name("llama", "gpu") == "llama-gpu"
    assert volume_name("llama", "gpu", "team") == "llama-gpu-team"
    assert kserve_volume_name("llama", "gpu", "team-a") == "llama-gpu-team-a"


def test_a_volume_has_the_name_of_no_other_claim() -> None:
    words = ["a", "b", "a-b", "b-a", "a-b-a"]
    triples = list(itertools.product(words, repeat=3))
    assert len({volume_name(*triple) for triple in triples}) == len(triples)
    name = volume_name("a", "g-b", "c")
    assert name.startswith("a-g-b-c-")
    assert name != volume_name("a", "g", "b-c")
    assert len(volume_name("a" * 253, "g" * 253, "c" * 63)) == 253


def test_a_name_that_is_no_label_is_cut_and_told_apart() -> None:
    long, other = "a" * 69, "a" * 70
    assert label_value("a" * 63) == "a" * 63
    assert len(label_value(long)) == len(label_value(other)) == 63
    assert label_value(long) != label_value(other)
    assert len(group_label(long).partition("/")[2]) == 63


@given(NAMES, NAMESPACES | st.just(""))
def test_warm_labels_are_valid_and_known_again(cache: str, namespace: str) -> None:
    label = warm_label(cache, namespace)
    name = label.partition("/")[2]
    assert 0 < len(name) <= LABEL_LENGTH_MAX
    assert is_warm_label(label)


def test_long_names_stay_apart() -> None:
    assert warm_label("a" * 70 + "x", "") != warm_label("a" * 70 + "y", "")


def test_labels_of_others_are_not_ours() -> None:
    for label in (
        "localmodel.serving.kserve.io",
        "serving.kserve.io/localmodel",
        "notlocalmodel.serving.kserve.io/x",
        group_label("gpu"),
    ):
        assert not is_warm_label(label)
