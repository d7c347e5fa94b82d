"""Write a new version into each file that contains the version, and date the changelog.

`make release VERSION=0.2.0`. Programs read the version from crds/version.py; other files cannot.
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TREE = Path(__file__).parent.parent
CHANGELOG = "CHANGELOG.md"
# Each file that contains the version, and the text before the version.
PLACES = {
    "crds/version.py": '__version__ = "',
    "Dockerfile": 'org.opencontainers.image.version="',
    "README.md": "registry.example.com/localmodel-$image:",
    "docs/install.md": "registry.example.com/localmodel-agent:",
    "docs/quick-start.md": "registry.example.com/localmodel-{hooks,agent}:",
    # Of `version` and of `appVersion`.
    "deploy/chart/Chart.yaml": "ersion: ",
    "deploy/base/kustomization.yaml": "newTag: ",
    "deploy/overlays/kserve/takeover/kustomization.yaml": "newTag: ",
}
_VERSION = r"[0-9]+\.[0-9]+\.[0-9]+"
_UNRELEASED = "## Unreleased\n"


class ReleaseError(Exception):
    """A version cannot be written. The message says what is wrong and what to do."""


def main(arguments: Sequence[str] | None = None, tree: Path = TREE) -> int:
    """Write the version into the files of the tree: all of them, or none."""
    parser = argparse.ArgumentParser(
        prog="make release", usage="make release VERSION=0.2.0", description=__doc__
    )
    parser.add_argument("version", help="such as 0.2.0")
    version = parser.parse_args(arguments).version
    files = [*PLACES, CHANGELOG]
    today = datetime.now(tz=UTC).date().isoformat()
    try:
        texts = released({name: (tree / name).read_text() for name in files}, version, today)
    except ReleaseError as error:
        parser.error(str(error))
    for name, text in texts.items():
        (tree / name).write_text(text)
    return 0


def versions_in(name: str, text: str) -> set[str]:
    """The versions in the text of one of the files of PLACES."""
    return set(re.findall(re.escape(PLACES[name]) + f"({_VERSION})", text))


def released(texts: dict[str, str], version: str, today: str) -> dict[str, str]:
    """The texts of all files with the new version. Raises ReleaseError."""
    if not re.fullmatch(_VERSION, version):
        raise ReleaseError(f"{version!r} is not a version; use three numbers, such as 0.2.0")
    found = {name: versions_in(name, texts[name]) for name in PLACES}
    (current, *others) = sorted(set().union(*found.values())) or [""]
    if others or not all(found.values()):
        listed = ", ".join(f"{name}: {' '.join(sorted(v)) or 'none'}" for name, v in found.items())
        raise ReleaseError(f"the files have different versions ({listed}); make them equal first")
    if _numbers(version) < _numbers(current):
        raise ReleaseError(f"{version} is older than {current} in the files; use a newer version")
    new = {
        name: re.sub(f"({re.escape(before)}){_VERSION}", rf"\g<1>{version}", texts[name])
        for name, before in PLACES.items()
    }
    return {**new, CHANGELOG: _dated(texts[CHANGELOG], version, today)}


def _dated(changelog: str, version: str, today: str) -> str:
    """The changelog with the unreleased entries below the title of the version."""
    head, title, rest = changelog.partition(_UNRELEASED)
    if not rest.partition("\n## ")[0].strip():
        raise ReleaseError(f'{CHANGELOG} has no entry below "Unreleased"; add one first')
    if re.search(f"^## {re.escape(version)} ", rest, re.MULTILINE):
        raise ReleaseError(f"{CHANGELOG} has {version} already; use a newer version")
    return f"{head}{title}\n## {version} - {today}\n{rest}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    sys.exit(main())
