"""Writes the root directory of an image, in a stage of the Dockerfile.

`/opt/localmodel/bin/python -m deploy.image.root hooks /image`, as root, in the base image.
"""

from __future__ import annotations

import compileall
import py_compile
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.image.contents import HOME, IMAGES, installed, libraries, python, standard_library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.image.contents import Image

# The user of the images. The agent's pod runs as root instead.
USER = 65532
_PASSWD = (
    f"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/tmp:/sbin/nologin\n"
)
_GROUP = f"root:x:0:\nnonroot:x:{USER}:\n"
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_OPENSSL = Path("/etc/ssl/openssl.cnf")
_RELEASE = Path("/etc/os-release")
# glibc loads it by this name when a thread ends.
_LOADED_LATE = "libgcc_s.so.1"
_PACKAGE = "localmodel"


def main(arguments: list[str]) -> int:
    """Write the root directory of the image."""
    image, root = IMAGES[arguments[0]], Path(arguments[1])
    files = dict(_files(image))
    for path, file in files.items():
        target = root / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
    _write_settings(root)
    _compile(root)
    _write_package_records(root, files)
    subprocess.run(["ldconfig", "-r", root], check=True)
    return 0


def _files(image: Image) -> Iterator[tuple[str, Path]]:
    """Each file of the image, by its path there."""
    site = sysconfig.get_path("purelib")
    yield str(python()), python()
    yield from standard_library()
    for path, file in installed(f"{Path(image.lock).read_text()}\n{_PACKAGE}==0\n"):
        (top, *rest) = Path(path).parts
        if top != _PACKAGE or len(rest) == 1 or rest[0] in image.modules:
            yield f"{site}/{path}", file
    yield f"{HOME}/pyvenv.cfg", Path(f"{HOME}/pyvenv.cfg")
    for program in image.programs:
        yield f"{HOME}/bin/{program}", Path(f"{HOME}/bin/{program}")
    yield from ((str(path), path) for path in _libraries(image))
    search = (Path("/etc/ld.so.conf"), *Path("/etc/ld.so.conf.d").iterdir())
    yield from ((str(file), file) for file in (_AUTHORITIES, _OPENSSL, _RELEASE, *search))


def _libraries(image: Image) -> Iterator[Path]:
    modules = [
        file
        for _, file in (*standard_library(), *installed(Path(image.lock).read_text()))
        if ".so" in file.suffixes
    ]
    yield from map(Path, libraries([python(), *modules]))
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    late = re.search(rf"{re.escape(_LOADED_LATE)} .* => (\S+)", known)
    if late is None:
        raise FileNotFoundError(f"the base image has no {_LOADED_LATE}: use a base of Debian")
    yield Path(late[1])


def _write_settings(root: Path) -> None:
    """Write what is not copied: users, names, links, and the folder for temporary files."""
    for path, text in {"passwd": _PASSWD, "group": _GROUP, "nsswitch.conf": _NSSWITCH}.items():
        (root / "etc" / path).write_text(text)
    (root / "tmp").mkdir(mode=0o1777)
    (root / "tmp").chmod(0o1777)
    for name in ("python", "python3"):
        (root / HOME.removeprefix("/") / "bin" / name).symlink_to(python())
    openssl = Path(ssl.get_default_verify_paths().openssl_cafile).parent
    settings = root / str(openssl).removeprefix("/")
    settings.mkdir(parents=True, exist_ok=True)
    for name, target in (
        ("cert.pem", _AUTHORITIES),
        ("certs", _AUTHORITIES.parent),
        ("openssl.cnf", _OPENSSL),
    ):
        if not (settings / name).exists():
            (settings / name).symlink_to(target)


def _compile(root: Path) -> None:
    """Compile all modules: the root directory of a pod is read-only."""
    compileall.compile_dir(
        root,
        quiet=2,
        maxlevels=20,
        workers=0,
        stripdir=str(root),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def _write_package_records(root: Path, files: dict[str, Path]) -> None:
    """Write the Debian packages of the files, where scanners look, and their licences."""
    records = root / "var/lib/dpkg/status.d"
    records.mkdir(parents=True)
    for package in sorted(_packages(files)):
        told = subprocess.run(["dpkg-query", "-s", package], capture_output=True, check=True)
        (records / package.partition(":")[0]).write_bytes(told.stdout)
        licence = Path("usr/share/doc", package.partition(":")[0], "copyright")
        if ("/" / licence).exists():
            (root / licence).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile("/" / licence, root / licence)


def _packages(files: dict[str, Path]) -> set[str]:
    """Names of the Debian packages that own some of the files."""
    paths = {path for path in files if not path.startswith((HOME, "/usr/local/"))}
    # In a merged /usr, a package may name a file by its path without /usr.
    paths |= {path.removeprefix("/usr") for path in paths} | {f"/usr{path}" for path in paths}
    told = subprocess.run(["dpkg-query", "-S", *paths], capture_output=True, text=True, check=False)
    lines = (line for line in told.stdout.splitlines() if not line.startswith("diversion "))
    named = {name for line in lines for name in line.rpartition(": ")[0].split(", ")}
    # The bundle of authorities is made at installation, and belongs to no package.
    return named | {"ca-certificates"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
