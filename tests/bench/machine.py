"""Describes the machine of a benchmark."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from crds.quantity import format_quantity


def facts(work: Path) -> str:
    """Processor, memory, kernel, the file system of the work, and Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return ", ".join(
        (
            f"{os.cpu_count()} cores ({_processor()})",
            f"{format_quantity(memory)} of memory",
            f"Linux {platform.release().partition('-')[0]}",
            f"{_file_system(work)} on the disk",
            f"Python {platform.python_version()}",
        )
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """The type of the file system of a path."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[2] == number:
            return words[words.index("-") + 1]
    return "a file system"
