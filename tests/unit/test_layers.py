"""The contracts of import-linter refuse what they are there to refuse."""

from __future__ import annotations

import graphlib
from typing import TYPE_CHECKING

import grimp

from tests.lint import lint_with

if TYPE_CHECKING:
    from pathlib import Path


def test_what_breaks_the_agents_layers_is_refused(tmp_path: Path) -> None:
    told = lint_with(
        tmp_path,
        {
            "agent/disk/upward.py": "import agent.control.step_plan",
            "agent/unnamed.py": "",
            "agent/structs/impure.py": "import os\nimport pathlib",
            "agent/engine/one.py": "import agent.engine.other",
            "agent/engine/other.py": "from typing import TYPE_CHECKING\n\n"
            "if TYPE_CHECKING:\n    import agent.engine.one",
        },
    )
    assert "The agent's layers import downward only BROKEN" in told
    assert "- agent.disk.upward -> agent.control.step_plan (l.1)" in told
    assert "not listed as layers:\n\n- agent.unnamed\n" in told
    assert "do no I/O BROKEN" in told
    for line, module in enumerate(("os", "pathlib"), start=1):
        assert f"agent.structs.impure -> {module} (l.{line})" in told
    assert "No module is in a circle of imports, those for types included BROKEN" in told
    assert "- .other -> .one (1 import)" in told
    assert ", 3 broken." in told


def test_what_breaks_the_hooks_layers_is_refused(tmp_path: Path) -> None:
    told = lint_with(
        tmp_path,
        {"hooks/tomorrow.py": "import flask\nimport os\nimport requests\nimport socket"},
        {"hooks/naming.py": "import hooks.caches"},
    )
    for line, module in enumerate(("flask", "os", "requests", "socket"), start=1):
        assert f"hooks.tomorrow -> {module} (l.{line})" in told
    assert "not listed as layers:\n\n- hooks.tomorrow\n" in told
    assert "- hooks.naming -> hooks.caches" in told


def test_io_in_what_the_plugin_decides_is_refused(tmp_path: Path) -> None:
    told = lint_with(
        tmp_path,
        {},
        {
            "deploy/kubectl/why_claims.py": "import os\nimport deploy.kubectl.status",
            "deploy/kubectl/du.py": "import agent.disk.store",
        },
    )
    assert "deploy.kubectl.why_claims -> os" in told
    assert "deploy.kubectl.why_claims -> deploy.kubectl.status" in told
    assert "deploy.kubectl.du -> agent.disk.store" in told


def test_the_sources_as_they_are_pass(tmp_path: Path) -> None:
    assert lint_with(tmp_path, {}) == ""


def test_no_module_is_in_a_circle() -> None:
    """The contract compares siblings: a module and the package that it is in are not."""
    graph = grimp.build_graph("agent", "crds", "deploy", "hooks", cache_dir=None)
    imported = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    graphlib.TopologicalSorter(imported).prepare()
