from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crds.naming import claim_name
from hooks.naming import (
    LABEL_LENGTH_MAX,
    group_label,
    is_warm_label,
    volume_name,
    warm_label,
)

NAMES = st.from_regex(r"\A[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
NAMESPACES = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


def test_kserves_names() -> None:
    assert claim_name("llama", "gpu") == "llama-gpu"
    assert volume_name("llama", "gpu", "team-a") == "llama-gpu-team-a"


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
