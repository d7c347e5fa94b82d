"""Builds the images: `make images`. It needs no installed packages."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from crds.version import __version__
from deploy.image.builder import BUILDERS, Builder, BuilderError, find
from deploy.image.contents import IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TREE = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the images that are named, and print their names."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.image.build",
        description=__doc__,
        epilog="Options after -- are passed to the program that builds.",
    )
    parser.add_argument("--builder", default="", help=f"{', '.join(BUILDERS)}; default: the first")
    parser.add_argument("--registry", default="", help="what stands before the images' names")
    parser.add_argument("--base", default="", help="an image instead of the Dockerfile's base")
    parser.add_argument("targets", nargs="*", help=f"{', '.join(IMAGES)}; default: all")
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:split])
    if unknown := {*options.targets} - {*IMAGES}:
        parser.error(f"there is no image {', '.join(sorted(unknown))}; name {', '.join(IMAGES)}")
    targets = options.targets or [*IMAGES]
    names = {target: name_of(target, options.registry) for target in targets}
    try:
        builder = Builder(find(options.builder), tuple(given[split + 1 :]))
        for target, name in names.items():
            builder.build(str(TREE), *build_options(target, name, options.base, _revision()))
    except BuilderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(["", *names.values()]))
    return 0


def name_of(target: str, registry: str) -> str:
    """The name of an image with its tag, such as `registry.example.com/localmodel-hooks:0.1.0`."""
    name = f"{IMAGES[target].name}:{__version__}"
    return f"{registry.rstrip('/')}/{name}" if registry else name


def build_options(target: str, name: str, base: str, revision: str) -> Iterator[str]:
    """The options of one build, which docker, podman and buildah share."""
    yield from ("--target", target, "--tag", name)
    if base:
        yield from ("--build-arg", f"BASE={base}")
    if revision:
        yield from ("--label", f"org.opencontainers.image.revision={revision}")


def _revision() -> str:
    """The commit of the checkout; empty: this is none, or it has changes."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "describe", "--always", "--abbrev=40", "--match=", "--dirty"]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)
    revision = done.stdout.strip()
    return "" if revision.endswith("-dirty") else revision


if __name__ == "__main__":
    sys.exit(main())
