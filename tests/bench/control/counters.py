"""Reads what the API server, gunicorn and Metacontroller have counted or logged. Pure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Path, status, bytes of the request, bytes of the answer, microseconds.
ACCESS_FORMAT = "%(U)s %(s)s %({content-length}i)s %(B)s %(D)s"
# After this long, Metacontroller has hung up: by default, and where metacontroller/ says so.
HOOK_SECONDS = 10.0
GROUP_HOOK_SECONDS = 30.0
AGENTS = "APPLY localmodelnodes/status"

_METRIC = "apiserver_request_total{"
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_WRITES = {"APPLY", "DELETE", "DELETECOLLECTION", "PATCH", "POST", "PUT"}
# Other programs' heartbeats and notes.
_APART = {"events", "leases"}
_ERROR = re.compile(r'^\{"level":"error"|\bERROR\b')


def writes(metrics: str) -> Counter[str]:
    """The API server's writes by kind, such as `APPLY localmodelnodes`; refused ones apart."""
    found: Counter[str] = Counter()
    for line in metrics.splitlines():
        if not line.startswith(_METRIC):
            continue
        labels = dict(_LABEL.findall(line))
        if labels["verb"] not in _WRITES or labels["resource"] in _APART:
            continue
        what = "/".join(part for part in (labels["resource"], labels["subresource"]) if part)
        refused = "" if labels["code"].startswith("2") else f" ({labels['code']})"
        found[f"{labels['verb']} {what}{refused}"] += int(float(line.rpartition(" ")[2]))
    return found


def difference(after: Mapping[str, int], before: Mapping[str, int]) -> Counter[str]:
    """What was counted in between."""
    return Counter(
        {
            name: count - before.get(name, 0)
            for name, count in after.items()
            if count != before.get(name, 0)
        }
    )


def accepted(writes_by_kind: Mapping[str, int]) -> int:
    """How many there are without the refused ones."""
    return sum(count for kind, count in writes_by_kind.items() if not kind.endswith(")"))


@dataclass
class Calls:
    """The calls of one hook. `failed`: other answers than 200, and those that came too late."""

    count: int = 0
    request_bytes: int = 0
    largest_bytes: int = 0
    slowest_seconds: float = 0.0
    failed: int = 0


def calls(lines: Iterable[str]) -> dict[str, Calls]:
    """The hooks' calls by path, from lines of ACCESS_FORMAT."""
    found: dict[str, Calls] = {}
    for line in lines:
        words = line.split()
        if len(words) != 5 or not words[0].endswith(("/sync", "/finalize", "/customize")):
            continue
        path, status, size, _, micros = words
        seconds = int(micros) / 1e6
        known = found.setdefault(path, Calls())
        known.count += 1
        sent = int(size) if size.isdigit() else 0
        known.request_bytes += sent
        known.largest_bytes = max(known.largest_bytes, sent)
        known.slowest_seconds = max(known.slowest_seconds, seconds)
        limit = GROUP_HOOK_SECONDS if path.startswith("/nodegroups/") else HOOK_SECONDS
        known.failed += status != "200" or seconds > limit
    return found


def errors(lines: Iterable[str]) -> int:
    """Lines of level error in the log of Metacontroller, or of its stand-in."""
    return sum(bool(_ERROR.search(line)) for line in lines)
