"""Writes the bill of materials of an image, in CycloneDX's JSON, from the lock of its packages.

`make sbom` writes it for the packages of Python. In the build of an image, `--root` adds Python
itself and the packages of Debian whose files the image has.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crds.version import __version__
from deploy.image.contents import IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deploy.image.contents import Image

TREE = Path(__file__).resolve().parents[2]
# Where a bill is in its image.
FOLDER = "usr/share/sbom"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the bill into a folder, or into the root directory of the image."""
    parser = argparse.ArgumentParser(prog="python -m deploy.image.sbom", description=__doc__)
    parser.add_argument("target", choices=IMAGES)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--folder", type=Path, help="the folder to write into")
    where.add_argument("--root", type=Path, help="the root directory of the image")
    options = parser.parse_args(arguments)
    image = IMAGES[options.target]
    more = [] if options.root is None else [_python(), *_debian(options.root)]
    folder = options.folder or options.root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(bill(image, more), indent=2, sort_keys=True)
    (folder / f"{image.name}.cdx.json").write_text(f"{text}\n")
    return 0


def bill(image: Image, more: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The bill of an image: localmodel, the packages of its lock, and more components."""
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible"]
    done = subprocess.run([*command, TREE / image.lock], capture_output=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    components = [_referred(component) for component in (*told["components"], *more)]
    itself = {
        "bom-ref": image.name,
        "type": "container",
        "name": image.name,
        "version": __version__,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    told["metadata"]["component"] = itself
    told["components"] = sorted(components, key=lambda component: str(component["bom-ref"]))
    told["dependencies"] = [
        {"ref": image.name, "dependsOn": [one["bom-ref"] for one in told["components"]]},
        *({"ref": one["bom-ref"]} for one in told["components"]),
    ]
    return told


def _referred(component: dict[str, Any]) -> dict[str, Any]:
    """The component with its package URL for its reference, without a copy of its lock's line."""
    kept = {key: value for key, value in component.items() if key != "description"}
    return kept | {"bom-ref": component["purl"]}


def _python() -> dict[str, Any]:
    version = platform.python_version()
    return {
        "type": "platform",
        "name": "python",
        "version": version,
        "purl": f"pkg:generic/python@{version}",
        "licenses": [{"license": {"id": "Python-2.0"}}],
    }


def _debian(root: Path) -> Iterator[dict[str, Any]]:
    """The packages of Debian whose files the image has."""
    for record in sorted((root / "var/lib/dpkg/status.d").iterdir()):
        fields = HeaderParser().parsestr(record.read_text())
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        yield {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}",
        }


if __name__ == "__main__":
    sys.exit(main())
