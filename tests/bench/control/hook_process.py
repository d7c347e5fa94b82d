"""Calls one hook of the checkout in the current folder, and tells what it costs: a line of JSON.

It stands alone, because that checkout may be of a revision without this benchmark.
Usage: settle|measure PATH REQUEST_FILE.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SETTLE = "settle"
MEASURE = "measure"
CALLS = 5
# Fewer where they take longer than this together.
SECONDS = 30.0


def settled(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The request that follows once the API server has stored the answer."""
    after: dict[str, Any] = json.loads(json.dumps(request))
    if "parent" in after:
        after["parent"]["status"] = {**answer["status"], "observedGeneration": 1}
    owned = "attachments" if "attachments" in after else "children"
    for child in answer.get(owned, ()):
        name = child["metadata"]["name"]
        same_kind = after[owned][f"{child['kind']}.{child['apiVersion']}"]
        stored = {
            "uid": f"uid-{name}",
            "resourceVersion": "4712",
            "generation": 1,
            "creationTimestamp": "2026-11-24T03:00:00Z",
        }
        before = same_kind.get(name, {"metadata": stored})
        metadata = {**child["metadata"], **before["metadata"]}
        same_kind[name] = {**before, **child, "metadata": metadata}
    return after


def peak_bytes() -> int:
    """The peak of this process's memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def main(mode: str, path: str, file: str) -> dict[str, Any]:
    """Call the hook until it is known what a call costs, or once, to replace the request.

    To settle is another process's job: what it has in memory would count.
    """
    sys.path.insert(0, str(Path.cwd()))
    from hooks.app import create_app  # noqa: PLC0415 - the other checkout's

    client = create_app().test_client()

    def call(body: bytes) -> bytes:
        answer = client.post(path, data=body, content_type="application/json")
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
        data: bytes = answer.data
        return data

    body = Path(file).read_bytes()
    if mode == MEASURE:
        return _measure(call, body)
    after = settled(json.loads(body), json.loads(call(body)))
    Path(file).write_text(json.dumps(after, separators=(",", ":")))
    return {}


def _measure(call: Callable[[bytes], bytes], body: bytes) -> dict[str, Any]:
    seconds: list[float] = []
    while len(seconds) < CALLS and sum(seconds) < SECONDS:
        began = time.process_time()
        call(body)
        seconds.append(time.process_time() - began)
    return {"seconds": median(seconds), "peak": peak_bytes(), "bytes": len(body)}


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
