from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

HERE = Path(__file__).parent
# Seconds that a test of each folder may take, fixtures included, unless the test is marked with a
# limit of its own. A limit ends what hangs, and nothing else: the tests run in parallel on machines
# that may have much else to do, so alone a test should take a quarter of its limit at most.
LIMITS = {"unit": 30, "contract": 60, "e2e": 400}
# For a Hypothesis test: it runs a hundred examples, and shrinks one that fails before reporting it.
PROPERTY_LIMIT = 120
# Characters of a parameter in a test's name.
LONGEST_ID = 100


@pytest.hookimpl(wrapper=True)
def pytest_collect_directory(
    path: Path,
) -> Generator[None, pytest.Collector | None, pytest.Collector | None]:
    """Mark each folder with its limit. Marks of a module or a test override the folder's mark."""
    folder = yield
    if folder is not None and path.parent == HERE and path.name in LIMITS:
        folder.add_marker(pytest.mark.timeout(LIMITS[path.name]))
    return folder


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a Hypothesis test with its limit. A mark of the test itself overrides this one."""
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        item.add_marker(pytest.mark.timeout(PROPERTY_LIMIT))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keep long values out of a test's id, which pytest and xdist repeat in each report."""
    return argname if isinstance(val, str | bytes) and len(val) > LONGEST_ID else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the hooks' answers into tests/fixtures, for a review of the diff",
    )


# Runs before xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests of each cluster on one worker, where they run one after the other."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        for name in ("world", "kserve", "kserve_nodes", "migration", "fleet", "stage"):
            if parameters is not None and name in parameters.params:
                item.add_marker(pytest.mark.xdist_group(f"{name}-{parameters.params[name]}"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail if xdist did not group the tests, as each worker would start every cluster."""
    if not getattr(session.config.option, "loadgroup", False):
        return
    for item in session.items:
        # xdist's scheduler reads the group from the end of the node id.
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
            raise pytest.UsageError("this xdist does not group tests with this pytest")
