"""What a page links to in this repository is there, headings included."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

TREE = Path(__file__).parent.parent.parent
PAGES = [*TREE.glob("*.md"), *TREE.glob("docs/*.md"), *TREE.glob(".github/**/*.md")]


def _text(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    seen: Counter[str] = Counter()
    anchors = set()
    for heading in re.findall(r"^#+ (.+)$", _text(page), re.MULTILINE):
        shown = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown).strip().lower().replace(" ", "-")
        anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TREE)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _text(page)):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_the_readme_leads_to_what_a_contributor_looks_for() -> None:
    readme = (TREE / "README.md").read_text()
    for name in ("CONTRIBUTING.md", "SECURITY.md", "RELEASE.md", "CHANGELOG.md", "LICENSE"):
        assert f"]({name})" in readme
