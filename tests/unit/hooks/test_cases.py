"""Cases are composed of a base and patches, and a typing error in one is told where it stands."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures import CASES, CaseError, Cases, patches, text
from tests.fixtures.__main__ import main
from tests.fixtures.patches import PatchError, apply, diff

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"

OBJECTS = """
LocalModelNode:
  New:
    metadata: {uid: uid-$(name), generation: 1}
    spec: {localModels: []}
  Listing: {from: New, spec: {localModels: [{modelName: llama, modelSize: 1Gi}]}}
LocalModelNodeGroup:
  Gpu: {metadata: {uid: uid-$(name)}, spec: {nodeSelector: {pool: gpu}}}
"""
BASE = """
request:
  parent: {from: Gpu, kind: LocalModelNodeGroup, metadata: {name: gpu}}
  related: {LocalModelNode: {node-1: {from: Listing}, node-2: {from: node-1}}}
answer:
  status:
    conditions: [{type: Ready, status: 'True', reason: Found}, {type: Room, status: 'True'}]
    nodes: [node-1, node-2]
  children:
    PersistentVolume: {b: {spec: {size: 1}}}
    PersistentVolumeClaim: {ns/b: {spec: {volumeName: b}}}
"""
NODE = "LocalModelNode.serving.kserve.io/v1alpha1"


class Folder:
    """Cases of one hook that a test writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "groups/sync").mkdir(parents=True)
        (root / "objects.yaml").write_text(OBJECTS)
        self.write("base", BASE)

    def write(self, name: str, content: str) -> Path:
        file = self.root / f"groups/sync/{name}.yaml"
        file.write_text(content)
        return file

    def case(self, content: str) -> Any:
        self.write("case", content)
        return Cases(self.root).load("groups/sync/case")

    def answer(self, content: str) -> Any:
        self.write("case", content)
        return Cases(self.root).answer("groups/sync/case")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_objects_are_whole_with_what_their_place_says(folder: Folder) -> None:
    request = folder.case("from: base\n").request
    assert request["parent"] == {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelNodeGroup",
        "metadata": {"name": "gpu", "uid": "uid-gpu"},
        "spec": {"nodeSelector": {"pool": "gpu"}},
    }
    assert request["related"][NODE]["node-2"] == {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelNode",
        "metadata": {"name": "node-2", "uid": "uid-node-2", "generation": 1},
        "spec": {"localModels": [{"modelName": "llama", "modelSize": "1Gi"}]},
    }
    (volume, claim) = folder.answer("from: base\n")["children"]
    assert volume["metadata"] == {"name": "b"}
    assert claim["metadata"] == {"name": "b", "namespace": "ns"}
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")


def test_objects_and_items_merge_by_name_and_are_deleted_by_name(folder: Folder) -> None:
    request = folder.case("""
from: base
request:
  related:
    LocalModelNode:
      node-1: {$patch: delete}
      node-2:
        spec:
          localModels: [{modelName: llama, modelSize: 2Gi}, {modelName: more, from: llama}]
      node-3: {from: New}
""").request
    nodes = request["related"][NODE]
    assert list(nodes) == ["node-2", "node-3"]
    assert nodes["node-2"]["spec"]["localModels"] == [
        {"modelName": "llama", "modelSize": "2Gi"},
        {"modelName": "more", "modelSize": "2Gi"},
    ]
    assert nodes["node-3"]["spec"] == {"localModels": []}
    answer = folder.answer("""
from: base
answer:
  status:
    conditions:
      - {type: Ready, status: 'False', reason: {$patch: delete}}
      - {$patch: add, type: Claims, status: 'True'}
      - {type: Room}
    nodes: []
  children:
    PersistentVolume: {a: {from: b, spec: {more: null}}, b: {}}
    PersistentVolumeClaim: {$patch: delete}
""")
    assert answer["status"] == {
        "conditions": [
            {"type": "Ready", "status": "False"},
            {"type": "Claims", "status": "True"},
            {"type": "Room", "status": "True"},
        ],
        "nodes": [],
    }
    assert [child["metadata"]["name"] for child in answer["children"]] == ["a", "b"]
    assert answer["children"][0]["spec"] == {"size": 1, "more": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("from: base\nrequests: {}\n", "case: no field requests: use one of from, settings, req"),
        ("from: base\nrequest: {parents: {}}\n", "request: no field parents: use one of contr"),
        ("from: base\nanswer: {state: {}}\n", "answer: no field state: use one of status"),
        ("from: base\nrequest:\n", "request: is not a map"),
        ("from: bases\n", "no case groups/sync/bases: use one of\n  groups/sync/base"),
        ("from: case\n", "builds on itself through groups/sync/case"),
        ("- from\n", "is not a map"),
        ("from: base\nfrom: base\n", "the key 'from' is there twice"),
        ("from: {\n", "is not YAML"),
        (
            "from: base\nrequest: {related: {Nodes: {}}}\n",
            "request.related: no field Nodes: use one of ConfigMap",
        ),
        (
            "from: base\nrequest: {related: {LocalModelNode: {node1: {spec: {}}}}}\n",
            "request.related.LocalModelNode[node1]: cannot patch what the base does not",
        ),
        (
            "from: base\nrequest: {related: {LocalModelNode: {node-3: {from: Old}}}}\n",
            "[node-3]: from: no item Old: there is New, Listing, node-1, node-2",
        ),
        (
            "from: base\nrequest: {parent: {metadata: {labels: {$patch: delete}}}}\n",
            "request.parent.metadata.labels: cannot delete what the base does not have: there is ",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_file_and_place(
    folder: Folder, content: str, message: str
) -> None:
    with pytest.raises(CaseError, match=re.escape(message)) as caught:
        folder.case(content)
    assert str(caught.value).startswith("groups/sync/case.yaml: ")


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ([{"type": "Raedy", "status": "False"}], "[Raedy]: cannot patch what the base does not"),
        ([{"type": "Raedy", "$patch": "delete"}], "[Raedy]: cannot delete what the base does not"),
        ([{"type": "Ready", "$patch": "add"}], "[Ready]: cannot add what the base has"),
        ([{"type": "Ready", "$patch": "remove"}], "[Ready]: no `$patch: remove`"),
        ([{"type": "New", "from": "Raedy"}], "[New]: from: no item Raedy: there is Ready"),
        ([{"type": "Ready"}, {"type": "Ready"}], "conditions: two items of one name"),
        ({"$patch": "delete", "a": 1}, "conditions: `$patch: delete` is for a key or an item"),
    ],
)
def test_a_patch_that_does_not_fit_a_list_is_refused(patch: Any, message: str) -> None:
    with pytest.raises(PatchError, match=re.escape(message)):
        apply([{"type": "Ready", "status": "True"}], patch, "status.conditions")


def test_the_objects_to_build_on_are_told_from_real_ones(folder: Folder) -> None:
    (folder.root / "objects.yaml").write_text("LocalModelNode: {node-1: {}}\n")
    with pytest.raises(CaseError, match="begin the name node-1 with a capital"):
        folder.case("from: base\n")


def test_a_new_answer_is_the_last_section_and_what_stands_above_is_left(folder: Folder) -> None:
    above = "# Why.\nfrom: base  # the usual\nrequest: {finalizing:   false}\n"
    file = folder.write("case", above)
    cases = Cases(folder.root)
    answer = cases.answer("groups/sync/base")
    answer["status"]["conditions"][0] |= {"status": "no", "reason": "1e3"}
    answer["resyncAfterSeconds"] = 2.0
    cases.update("groups/sync/case", answer)
    assert file.read_text() == above + (
        "answer:\n"
        "  status: {conditions: [{type: Ready, status: 'no', reason: '1e3'}]}\n"
        "  resyncAfterSeconds: 2.0\n"
    )
    assert cases.answer("groups/sync/case") == answer
    del answer["resyncAfterSeconds"]
    cases.update("groups/sync/case", answer)
    assert Cases(folder.root).answer("groups/sync/case") == answer
    assert file.read_text().startswith(above + "answer:")
    folder.write("case", "from: base\nanswer: {}\nrequest: {}\n")
    with pytest.raises(CaseError, match="move `answer` there"):
        Cases(folder.root).update("groups/sync/case", answer)


def test_what_a_base_answers_anew_leaves_the_other_files_as_they_are(folder: Folder) -> None:
    names = ["base", "one", "two"]
    folder.write("one", "from: base\nanswer: {status: {conditions: [{type: Room, status: ''}]}}\n")
    folder.write("two", "from: one  # two\nanswer:\n  # as it is\n  status: {nodes: []}\n")
    cases = Cases(folder.root)
    before = {name: cases._file(f"groups/sync/{name}").read_text() for name in names}
    assert cases.bases("groups/sync/two") == ["groups/sync/base", "groups/sync/one"]
    answers = {name: cases.answer(f"groups/sync/{name}") for name in names}
    for name, answer in answers.items():
        answer["status"]["turns"] = 3
        answer["children"][0]["metadata"]["labels"] = {"new": "yes"}
        cases.update(f"groups/sync/{name}", answer)
    after = {name: cases._file(f"groups/sync/{name}").read_text() for name in names}
    assert [name for name in names if after[name] != before[name]] == ["base"]
    assert {name: Cases(folder.root).answer(f"groups/sync/{name}") for name in names} == answers


def test_an_answer_that_fits_its_base_no_more_is_written_anew(folder: Folder) -> None:
    folder.write("case", "from: base\nanswer: {status: {conditions: [{type: Gone, status: ''}]}}\n")
    cases = Cases(folder.root)
    with pytest.raises(CaseError, match="--update-golden writes the answer anew"):
        cases.answer("groups/sync/case")
    cases.load("groups/sync/case")
    cases.update("groups/sync/case", {"status": {}})
    assert cases.answer("groups/sync/case") == {"status": {}}


def test_the_order_of_what_a_hook_answers_is_kept(folder: Folder) -> None:
    folder.write("case", "from: base\n")
    cases = Cases(folder.root)
    answer = cases.answer("groups/sync/base")
    volume, claim = answer["children"]
    other = copy.deepcopy(volume) | {"metadata": {"name": "a"}}
    for children in ([claim, volume], [other, volume, claim], [volume, other, claim], []):
        changed = answer | {"children": children}
        cases.update("groups/sync/case", changed)
        assert Cases(folder.root).answer("groups/sync/case") == changed
    with pytest.raises(CaseError, match="mixes kinds"):
        cases.update("groups/sync/case", answer | {"children": [volume, claim, other]})


ANYTHING = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
AMBIGUOUS = [
    *("yes", "on", "~", "null", "true", "", " ", "1e3", "1.5", "0x1f", "0o7", "1_000", "1:30"),
    *(
        "2026-11-24",
        "2026-11-24T03:00:00Z",
        "- a",
        "a: b",
        "#",
        "{",
        "=",
        "<<",
        "s3://a,b",
        "é\n",
        "\x85",
    ),
]
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9)
STRINGS = st.text(max_size=8) | st.sampled_from(AMBIGUOUS)
ITEMS = st.fixed_dictionaries(
    {"name": st.sampled_from("abcd")},
    optional={"namespace": st.sampled_from(["", "x"]), "v": STRINGS},
)
VALUES = st.recursive(
    SCALARS | STRINGS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "models", "on", "1e3"]), inner, max_size=4)
        | st.fixed_dictionaries({"models": st.lists(ITEMS, max_size=4)})
    ),
    max_leaves=8,
)


@ANYTHING
@given(VALUES)
def test_any_value_is_the_same_when_it_was_written_and_read(value: Any) -> None:
    assert json.dumps(text.load(text.dump(value))) == json.dumps(value)


MODELS = st.fixed_dictionaries(
    {"models": st.lists(ITEMS, max_size=4)}, optional={"a": STRINGS, "b": SCALARS, "c": VALUES}
)


@ANYTHING
@given(MODELS, MODELS)
def test_the_patch_that_is_found_makes_the_one_of_the_other(base: Any, want: Any) -> None:
    patch = diff(base, want)
    assert patches.same(apply(base, patch, ""), want)


def test_a_case_is_printed_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    name = "caches/sync/a-service-has-its-claim"
    assert main(["--show", name]) == 0
    case = CASES.load(name)
    assert text.load(capsys.readouterr().out) == {
        "settings": case.settings,
        "request": case.request,
        "answer": CASES.answer(name),
    }
    assert main(["--show", "caches/sync/a-service-has-a-claim"]) == 1
    assert name in capsys.readouterr().err
    assert main([]) == 0
    assert capsys.readouterr().out.split() == CASES.names


def test_each_file_is_a_case_and_each_object_is_used() -> None:
    files = {path for path in FIXTURES.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    cases = {FIXTURES / f"{name}.yaml" for name in CASES.names}
    code = set(FIXTURES.glob("*.py"))
    assert files == cases | code | {FIXTURES / "objects.yaml"}
    used = set(re.findall(r"\bfrom: ([A-Z]\w*)", "".join(file.read_text() for file in files)))
    assert used >= {name for objects in CASES._library.values() for name in objects}
