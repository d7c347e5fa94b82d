"""The one program that writes for all nodes: LocalModelNodes, and their statuses for the agents.

A job is a line of JSON on the standard input, and so is its answer. The bodies are made of few
texts, and each connection is a thread's own: it must not be what is measured.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from agent.cluster.report import FIELD_MANAGER
from crds.base import API_VERSION
from tests.bench.control import objects
from tests.bench.control.tracking import Version
from tests.bench.running import status_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPECS = "specs"
STATUSES = "statuses"
_PATH = f"/apis/{API_VERSION}/localmodelnodes"
_HEADERS = {"Content-Type": "application/apply-patch+yaml"}
_CALL_SECONDS = 60.0
_CONFLICT = 409
# In the order of the stored JSON: metadata comes before what could have such fields too.
_VERSION = re.compile(rb'"resourceVersion":"(\d+)"')
_GENERATION = re.compile(rb'"generation":(\d+)')


@dataclass
class Job:
    """What to write. `versions` has the nodes; `spread` is the time to take, as agents would."""

    what: str
    kubeconfig: str
    models: int
    versions: dict[str, Version]
    connections: int
    limit: float
    share: float = 1.0
    spread: float = 0.0

    @classmethod
    def from_json(cls, line: str) -> Job:
        """Read a line."""
        raw = json.loads(line)
        versions = {name: Version(**version) for name, version in raw["versions"].items()}
        return cls(**{**raw, "versions": versions})

    def to_json(self) -> dict[str, Any]:
        """What makes a line."""
        return asdict(self)


@dataclass
class Done:
    """What was written, from when on, by the monotonic clock, and how long it took."""

    began: float = 0.0
    seconds: float = 0.0
    conflicts: int = 0
    versions: dict[str, Version] = field(default_factory=dict)
    cpu: float = 0.0
    peak_bytes: int = 0

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Done:
        """Read an answer."""
        versions = {name: Version(**version) for name, version in raw["versions"].items()}
        return cls(**{**raw, "versions": versions})


class Connection:
    """One kept connection to an API server."""

    def __init__(self, kubeconfig: str) -> None:
        config = yaml.safe_load(Path(kubeconfig).read_text())
        cluster = config["clusters"][0]["cluster"]
        server = urlsplit(cluster["server"])
        assert server.hostname
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
        self._connection = http.client.HTTPSConnection(
            server.hostname, server.port, context=context, timeout=_CALL_SECONDS
        )
        self._connection.connect()

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._connection.request(method, path, body, self._headers | _HEADERS)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()


class _Writer:
    """Does one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._left = iter(enumerate(job.versions.items()))
        self._done = Done()
        self._failures: list[BaseException] = []
        self._write: Callable[[Connection, str, Version], Version]
        self._write = self._spec if job.what == SPECS else self._status
        now = datetime.now(tz=UTC).replace(microsecond=0)

        @cache
        def status(generation: int) -> str:
            return json.dumps(objects.node_status(job.models, generation, now, job.share))

        self._status_text = status
        self._spec_text = objects.spec_text(job.models)
        for version in job.versions.values():
            self._status_text(version.generation)

    def run(self) -> Done:
        """Write everything. Raises the first failure."""
        connections = [Connection(self._job.kubeconfig) for _ in range(self._job.connections)]
        threads = [threading.Thread(target=self._work, args=(one,)) for one in connections]
        done = self._done
        used = time.process_time()
        done.began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.seconds = time.monotonic() - done.began
        done.cpu = time.process_time() - used
        done.peak_bytes = status_bytes("VmHWM")
        for one in connections:
            one.close()
        if self._failures:
            raise self._failures[0]
        return done

    def _work(self, connection: Connection) -> None:
        try:
            for name, version in self._turns():
                stored = self._write(connection, name, version)
                with self._lock:
                    self._done.versions[name] = stored
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._failures.append(error)

    def _turns(self) -> Iterator[tuple[str, Version]]:
        """The nodes that no other thread takes, each when it is due, until the time is up."""
        job = self._job
        while not self._failures:
            with self._lock:
                number, turn = next(self._left, (0, None))
            due = self._done.began + job.spread * number / max(1, len(job.versions))
            time.sleep(max(0.0, due - time.monotonic()))
            if turn is None or time.monotonic() > self._done.began + job.limit:
                return
            yield turn

    def _spec(self, connection: Connection, name: str, _version: Version) -> Version:
        path = f"{_PATH}/{name}?fieldManager=metacontroller&force=true"
        return _stored(*connection.call("PATCH", path, objects.spec_body(name, self._spec_text)))

    def _status(self, connection: Connection, name: str, version: Version) -> Version:
        path = f"{_PATH}/{name}/status?fieldManager={FIELD_MANAGER}&force=true"
        while True:
            text = self._status_text(version.generation)
            body = objects.status_body(name, version.resource_version, text)
            status, answer = connection.call("PATCH", path, body)
            if status != _CONFLICT:
                return _stored(status, answer)
            # As an agent does: what it reported was of an older spec.
            with self._lock:
                self._done.conflicts += 1
            version = _stored(*connection.call("GET", f"{_PATH}/{name}"))


def _stored(status: int, body: bytes) -> Version:
    if status >= 400:
        raise RuntimeError(f"the API server answered {status}: {body[:300].decode()}")
    version, generation = _VERSION.search(body), _GENERATION.search(body)
    assert version
    assert generation
    return Version(version[1].decode(), int(generation[1]))


def main() -> None:
    """Answer until the input ends."""
    out = sys.stdout
    sys.stdout = sys.stderr
    out.write('{"ready": true}\n')
    out.flush()
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            answer = asdict(_Writer(Job.from_json(line)).run())
        except Exception as error:  # noqa: BLE001 - the one who asked shall know
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
