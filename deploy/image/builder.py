"""The program that builds images: docker, podman or buildah. It needs no installed packages."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

# Each program, and the command that fails where it cannot build: docker needs its daemon.
_PROBES = {
    "docker": ("docker", "version"),
    "podman": ("podman", "info"),
    "buildah": ("buildah", "info"),
}
BUILDERS = tuple(_PROBES)


class BuilderError(Exception):
    """No image can be built. The message says what is wrong and what to do."""


@dataclass(frozen=True)
class Builder:
    """A program that can build images here, and the options that all its builds get."""

    program: str
    options: tuple[str, ...] = ()

    def build(self, context: str, *options: str) -> None:
        """Build an image. Raises BuilderError; the program's own output says why."""
        command = [self.program, "build", *options, *self.options, context]
        code = subprocess.run(command, check=False).returncode
        if code:
            shown = " ".join(command)
            raise BuilderError(
                f"this command failed with exit code {code}, and its last lines above say why: "
                f"{shown}; docs/images.md says how to build without a registry"
            )


def find(wanted: str = "") -> str:
    """The wanted program, or the first that works here. Raises BuilderError."""
    refusals = []
    for program in [wanted] if wanted else BUILDERS:
        refusal = _refusal(program)
        if refusal is None:
            return program
        refusals.append(f"{program}: {refusal}")
    raise BuilderError(
        f"no image can be built here ({'; '.join(refusals)}); start docker's daemon, or install "
        "podman or buildah (on Debian: apt-get install buildah)"
    )


def _refusal(program: str) -> str | None:
    """Why the program cannot build here; None: it can."""
    if program not in _PROBES:
        return f"not one of {', '.join(BUILDERS)}"
    found = shutil.which(program)
    if found is None:
        return "not installed"
    done = subprocess.run(
        [found, *_PROBES[program][1:]], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    return (done.stderr.strip() or done.stdout.strip() or "it fails").splitlines()[-1]
