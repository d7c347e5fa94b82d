"""Images for real nodes, which pull none: archives of Docker's form, made of local files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

# For the pods of tests and demos, and for the sandbox of each pod.
BUSYBOX = "localmodel.local/busybox:1"
_FOREVER = 2**31 - 1


def write_busybox(program: Path, archive: Path) -> None:
    """Write the image with busybox and a link for each of its commands."""
    layer = archive.with_suffix(".layer")
    write_busybox_layer(program, layer)
    # The command of the sandbox, whose process only keeps the pod's namespaces.
    config = {"Cmd": ["/bin/sleep", str(_FOREVER)], "Env": ["PATH=/bin"]}
    write(archive, BUSYBOX, [layer], config)
    layer.unlink()


def write_busybox_layer(program: Path, layer: Path) -> None:
    """Write a layer with busybox at /bin, and with an empty /tmp."""
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    with tarfile.open(layer, mode="w") as files:
        for folder, mode in (("bin", 0o755), ("tmp", 0o1777)):
            files.addfile(_entry(folder, tarfile.DIRTYPE, mode))
        add_file(files, "bin/busybox", program)
        for command in listed.stdout.split():
            if command != "busybox":
                link = _entry(f"bin/{command}", tarfile.SYMTYPE, 0o777)
                link.linkname = "busybox"
                files.addfile(link)


def write_layer(layer: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Write a layer of files, each with its path in the image and the file to copy."""
    with tarfile.open(layer, mode="w") as archive:
        for path, source in files:
            add_file(archive, path, source)


def add_file(archive: tarfile.TarFile, path: str, source: Path) -> None:
    """Add a file to a layer, as root's; the target of a link, not the link."""
    stat = source.stat()
    info = _entry(path.lstrip("/"), tarfile.REGTYPE, 0o755 if stat.st_mode & 0o100 else 0o644)
    # Python uses a compiled file only if it fits the time of its source.
    info.size, info.mtime = stat.st_size, int(stat.st_mtime)
    with source.open("rb") as content:
        archive.addfile(info, content)


def write(archive: Path, name: str, layers: Sequence[Path], config: Mapping[str, object]) -> None:
    """Write an image of some layers, which are tar archives, for `ctr images import`.

    config: its environment and command, as in the configuration of an OCI image.
    """
    digests = [_digest(layer) for layer in layers]
    image = {
        "architecture": _architecture(),
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    names = [f"{digest}.tar" for digest in digests]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
    with tarfile.open(archive, "w") as files:
        for path, layer in zip(names, layers, strict=True):
            add_file(files, path, layer)
        for path, document in (("config.json", image), ("manifest.json", manifest)):
            content = json.dumps(document).encode()
            info = _entry(path, tarfile.REGTYPE, 0o644)
            info.size = len(content)
            files.addfile(info, io.BytesIO(content))


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode = kind, mode
    return info


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
