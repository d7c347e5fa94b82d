"""Makes a base of the images from Debian's packages, where no registry is reached.

`make image-base`, as root. It has the Python 3.11 of Debian 12, and is named localmodel-base.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.image.builder import BUILDERS, Builder, BuilderError, find

if TYPE_CHECKING:
    from collections.abc import Sequence

# The prefix is podman's and buildah's for images that no registry has.
NAME = "localhost/localmodel-base"
_SUITE = "bookworm"
_PACKAGES = "ca-certificates,python3,python3-venv"
_LEFT_OUT = ("dev/*", "proc/*", "sys/*", "var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*")
_DOCKERFILE = "FROM scratch\nADD base.tar /\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the base, and print its name."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.image.debian_base",
        description=__doc__,
        epilog="Options after -- are passed to the program that builds.",
    )
    parser.add_argument("--builder", default="", help=f"{', '.join(BUILDERS)}; default: the first")
    parser.add_argument("--mirror", default="", help="a mirror of Debian (default: debootstrap's)")
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:split])
    try:
        builder = Builder(find(options.builder), tuple(given[split + 1 :]))
        with tempfile.TemporaryDirectory() as folder:
            write_root(Path(folder) / "base.tar", options.mirror)
            (Path(folder) / "Dockerfile").write_text(_DOCKERFILE)
            builder.build(folder, "--tag", NAME)
    except BuilderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\n{NAME}")
    return 0


def write_root(archive: Path, mirror: str) -> None:
    """Write an archive with Debian and Python. Raises BuilderError."""
    program = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        raise BuilderError(
            "the base is made by debootstrap, as root: run `make packages` and this command as root"
        )
    with tempfile.TemporaryDirectory(dir=archive.parent) as root:
        command = [
            program,
            "--variant=minbase",
            f"--include={_PACKAGES}",
            _SUITE,
            root,
            *filter(None, [mirror]),
        ]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            last = "\n".join(done.stdout.splitlines()[-5:])
            raise BuilderError(
                f"debootstrap failed with exit code {done.returncode}: {last}; check that this "
                f"machine reaches {mirror or 'its mirror of Debian'}, or name another: --mirror"
            )
        left_out = [f"--exclude=./{pattern}" for pattern in _LEFT_OUT]
        tar = ["/bin/tar", "--create", f"--file={archive}", f"--directory={root}", *left_out, "."]
        subprocess.run(tar, check=True)


if __name__ == "__main__":
    sys.exit(main())
