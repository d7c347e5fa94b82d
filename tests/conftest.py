from __future__ import annotations

import pytest


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
