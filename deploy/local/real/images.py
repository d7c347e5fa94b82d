"""Images for real nodes, made of local files as archives of Docker's form: no registry is there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# For the pods of tests and demos, and for the sandbox of each pod.
BUSYBOX = "localmodel.local/busybox:1"
_FOREVER = 2**31 - 1


def busybox(program: Path, archive: Path) -> None:
    """Write the image with busybox and a link for each of its commands."""
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        for folder in ("bin", "etc", "tmp", "mnt"):
            files.addfile(_entry(folder, tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755))
        content = program.read_bytes()
        info = _entry("bin/busybox", tarfile.REGTYPE, 0o755)
        info.size = len(content)
        files.addfile(info, io.BytesIO(content))
        for command in listed.stdout.split():
            if command != "busybox":
                link = _entry(f"bin/{command}", tarfile.SYMTYPE, 0o777)
                link.linkname = "busybox"
                files.addfile(link)
    # The command of the sandbox, whose process only keeps the pod's namespaces.
    config = {"Entrypoint": ["/bin/sleep", str(_FOREVER)], "Env": ["PATH=/bin"]}
    write(archive, BUSYBOX, layer.getvalue(), config)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, mode
    return info


def write(archive: Path, name: str, layer: bytes, config: Mapping[str, object]) -> None:
    """Write an image of one layer, a tar archive, for `ctr images import`.

    config: its user, environment and command, as in the configuration of an OCI image.
    """
    image = {
        "architecture": _architecture(),
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts: Sequence[tuple[str, bytes]] = (
        ("layer.tar", layer),
        ("config.json", json.dumps(image).encode()),
        ("manifest.json", json.dumps(manifest).encode()),
    )
    with tarfile.open(archive, "w") as files:
        for part, content in parts:
            info = _entry(part, tarfile.REGTYPE, 0o644)
            info.size = len(content)
            files.addfile(info, io.BytesIO(content))


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
