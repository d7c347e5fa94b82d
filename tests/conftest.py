from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

HERE = Path(__file__).parent
# Seconds that a test of each folder may take, fixtures included, unless the test is marked with a
# limit of its own. The tests run in parallel on busy machines, so alone a test should take a
# quarter of its limit at most.
LIMITS = {"unit": 10, "contract": 60, "e2e": 400}
# For a Hypothesis test: it runs a hundred examples, and shrinks one that fails before reporting it.
PROPERTY_LIMIT = 120
# Characters of a parameter in a test's name.
LONGEST_ID = 100


@pytest.hookimpl(wrapper=True)
def pytest_collect_directory(
    path: Path,
) -> Generator[None, pytest.Collector | None, pytest.Collector | None]:
    """Mark each folder with its limit: the marks of a module or a test are closer, and win."""
    folder = yield
    if folder is not None and path.parent == HERE and path.name in LIMITS:
        folder.add_marker(pytest.mark.timeout(LIMITS[path.name]))
    return folder


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a Hypothesis test with its limit: a mark of its own comes first, and wins."""
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        item.add_marker(pytest.mark.timeout(PROPERTY_LIMIT))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name no test after megabytes: pytest and xdist pass its name on with each report."""
    return argname if isinstance(val, str | bytes) and len(val) > LONGEST_ID else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the hooks answer into tests/fixtures, to be read in the diff",
    )


# Before xdist looks at the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each cluster a worker of its own: tests that share one run one after the other."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        for name in ("world", "kserve", "kserve_nodes", "migration", "fleet"):
            if parameters is not None and name in parameters.params:
                item.add_marker(pytest.mark.xdist_group(f"{name}-{parameters.params[name]}"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to share clusters between workers, which would start each of them again and again."""
    if not getattr(session.config.option, "loadgroup", False):
        return
    for item in session.items:
        # So xdist tells the one that hands tests out.
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
            raise pytest.UsageError("this xdist does not group tests with this pytest")
