"""The first process of a real node: `unshare ... python -m deploy.local.real.machine FOLDER ...`.

Runs in mount and process namespaces of the node's own. Their end, by the end of this process, ends
every process and every mount of the node.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from deploy.local.layout import KUBE
from deploy.local.process import describe_status
from deploy.local.real import settings
from deploy.local.real.packages import HIDDEN, PATH

# What kubelet and CNI would set for the whole machine.
SYSCTLS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
START_SECONDS = 20.0
CONTAINERD = "/var/lib/containerd"
# What a restart of the node need not keep. On a disk, each import of an image and each end of a
# container would wait until all is written.
IN_MEMORY = ("/run", CONTAINERD)
# Where volumes and agents expect the node's disk.
DISK = Path("/var/lib/localmodel")


def _mount(*args: str | Path) -> None:
    subprocess.run(["mount", *args], check=True)


def furnish(folder: Path, disk: Path) -> None:
    """Mount the node's own folders and files where kubelet and containerd use the machine's."""
    # Kubelet passes later mounts on to containers whose volumes ask for that.
    _mount("--make-rshared", "/")
    for hidden in set(HIDDEN) - set(IN_MEMORY):
        own = folder / hidden.lstrip("/").replace("/", "-")
        own.mkdir(exist_ok=True)
        _mount("--bind", own, hidden)
    for hidden in IN_MEMORY:
        Path(hidden).mkdir(exist_ok=True)
        _mount("-t", "tmpfs", "tmpfs", hidden)
    sysctls = Path("/run/sysctl")
    for name in SYSCTLS:
        real, own = Path("/proc/sys") / name, sysctls / name
        if real.exists():
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(real.read_text())
            _mount("--bind", own, real)
    DISK.mkdir(exist_ok=True)
    _mount("--bind", disk, DISK)


def _start_containerd(folder: Path, images: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["containerd", "--config", folder / "containerd.toml"])
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(_ctr("version"), capture_output=True, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit("containerd does not start")
        time.sleep(0.05)
    for archive in sorted(images.glob("*.tar")):
        subprocess.run(_ctr("images", "import", str(archive)), check=True)
    return process


def _ctr(*args: str) -> list[str]:
    return ["ctr", "--address", settings.SOCKET, "--namespace", "k8s.io", *args]


def _start_kubelet(folder: Path, name: str, kubeconfig: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            KUBE,
            "kubelet",
            f"--config={folder / 'kubelet.json'}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={name}",
            # So kubelet keeps the Node's address: it would not report a loopback address itself.
            "--cloud-provider=external",
        ]
    )


def main(arguments: list[str]) -> int:
    """Run a node until containerd or kubelet ends."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.real.machine")
    parser.add_argument("folder", type=Path, help="the node's folder, with its settings")
    parser.add_argument("--name", required=True)
    parser.add_argument("--disk", type=Path, required=True, help="folder of the node's models")
    parser.add_argument("--images", type=Path, required=True, help="folder of archives")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    options = parser.parse_args(arguments)
    os.environ["PATH"] = PATH
    furnish(options.folder, options.disk)
    shutil.copytree(options.folder / "cni", settings.CNI_SETTINGS)
    programs = {
        _start_containerd(options.folder, options.images).pid: "containerd",
        _start_kubelet(options.folder, options.name, options.kubeconfig).pid: "kubelet",
    }
    # As the first process of its namespace, this one also reaps what others leave behind.
    while True:
        pid, status = os.wait()
        if pid in programs:
            print(f"{programs[pid]} ended: {describe_status(status)}", flush=True)
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
