from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest

TESTS = Path(conftest.__file__).parent

# Reports the limit that pytest-timeout sets for each test.
REPORTER = """
def pytest_timeout_set_timer(item, settings):
    print(f"limit {item.nodeid} {settings.timeout:g}")
"""
DEFAULT = "def test_default(): pass\n"
PROPERTY = """
from hypothesis import given, strategies as st

@given(st.none())
def test_property(_): pass
"""
OWN = """
import pytest
from hypothesis import given, strategies as st

@given(st.none())
@pytest.mark.timeout(44)
def test_own_property(_): pass

pytestmark = pytest.mark.timeout(33)

def test_of_the_module(): pass

@pytest.mark.timeout(44)
def test_own(): pass
"""


@pytest.mark.timeout(120)  # starts a pytest of its own, with Hypothesis
def test_each_folder_has_its_limit_and_a_mark_of_a_test_wins(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    for folder in ("unit/deep", "contract", "e2e"):
        (tests / folder).mkdir(parents=True)
        (tests / folder / f"test_{Path(folder).name}.py").write_text(DEFAULT)
    (tests / "unit" / "deep" / "test_own.py").write_text(OWN)
    (tests / "unit" / "test_property.py").write_text(PROPERTY)
    shutil.copyfile(TESTS / "conftest.py", tests / "conftest.py")
    (tmp_path / "conftest.py").write_text(REPORTER)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "pytest_timeout"],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split()[-2:] for line in done.stdout.splitlines() if "limit " in line]
    assert dict(lines) == {
        "tests/contract/test_contract.py::test_default": "60",
        "tests/e2e/test_e2e.py::test_default": "400",
        "tests/unit/deep/test_deep.py::test_default": "30",
        "tests/unit/deep/test_own.py::test_of_the_module": "33",
        "tests/unit/deep/test_own.py::test_own": "44",
        "tests/unit/deep/test_own.py::test_own_property": "44",
        "tests/unit/test_property.py::test_property": "120",
    }


def test_this_folder_has_its_limit(request: pytest.FixtureRequest) -> None:
    mark = request.node.get_closest_marker("timeout")
    assert mark is not None
    assert mark.args == (conftest.LIMITS["unit"],)


def test_the_folders_with_limits_are_all_that_hold_tests() -> None:
    folders = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    assert folders == set(conftest.LIMITS)
