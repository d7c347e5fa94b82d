"""Damage of published files is found, told and repaired."""

from __future__ import annotations

DAY = 86400.0
FILES = {f"{n}.bin": n.encode() * 70_000 for n in ("p", "q", "sub/r")}
