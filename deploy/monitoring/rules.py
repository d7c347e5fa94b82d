"""The alerts of deploy/components/monitoring, and a copy of them with shorter times for tests."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).resolve().parents[1] / "components" / "monitoring" / "rules.yaml"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+)([smhd])")
# What an expression has of time: windows, offsets, and ages in seconds. All else stays.
_WINDOW = re.compile(r"(?<=\[)\d+[smhd](?=\])|(?<=offset )\d+[smhd]\b")
_AGE = re.compile(r"(time\(\) - \w+ > )(\d+)")


def rule_groups() -> list[dict[str, Any]]:
    """The groups of rules, as in a rule file of Prometheus."""
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    return groups


def seconds_of(duration: str) -> float:
    """The seconds of a duration such as 10m. Raises ValueError."""
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ValueError(f"not one number and one unit: {duration}")
    return float(found[1]) * _UNITS[found[2]]


def shortened(
    groups: list[dict[str, Any]], factors: dict[str, float], factor: float
) -> list[dict[str, Any]]:
    """The same rules with all times divided by a factor: `for`, windows, and ages in seconds.

    The logic of an expression stays, with the order of its times. factors: of single alerts.
    """
    made = copy.deepcopy(groups)
    for group in made:
        for rule in group["rules"]:
            by = factors.get(rule["alert"], factor)
            rule["expr"] = _shorter(rule["expr"], by)
            if "for" in rule:
                rule["for"] = _short(rule["for"], by)
    return made


def _shorter(expr: str, factor: float) -> str:
    expr = _WINDOW.sub(lambda found: _short(found[0], factor), expr)
    return _AGE.sub(lambda found: f"{found[1]}{float(found[2]) / factor:.3f}", expr)


def _short(duration: str, factor: float) -> str:
    return f"{round(seconds_of(duration) * 1000 / factor)}ms"
