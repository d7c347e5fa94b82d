"""The origin of the benchmark: nginx on loopback, with all files in memory.

An S3 bucket is a folder of the same server, with prepared pages of its listing. Signatures are
ignored. `<bucket>-sums` has the same objects with checksums, as S3 reports them.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from awscrt import checksums

from tests.bench.running import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFIX = "m"
PAGE = 1000
SLOW_BYTES_PER_SECOND = 50 << 20
SUMS = "-sums"
WARM = "warm"
_CHUNK = 8 << 20
_START_SECONDS = 10.0

_CONFIG = """\
worker_processes 2; daemon off; pid {root}/nginx.pid; error_log {root}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  open_file_cache max=20000 inactive=1h;
  client_body_temp_path {root}/t; proxy_temp_path {root}/t; fastcgi_temp_path {root}/t;
  uwsgi_temp_path {root}/t; scgi_temp_path {root}/t;
  default_type application/octet-stream;
  map_hash_bucket_size 256;
  # Only the files of one folder are served.
  map $args $page {{
    default 0;
    "~prefix=(?!{prefix}(%2F|/|&|$))" none;
    "~(?:continuation-token|marker)=page-(?<number>\\d+)" $number;
  }}
  map "$request_method $uri" $crc {{
{sums}
  }}
{servers}
}}
"""
_SERVER = """\
  server {{
    listen 127.0.0.1:{port}; root {root}/www; autoindex on; {extra}
    add_header x-amz-checksum-crc64nvme $crc;
    add_header x-amz-checksum-type FULL_OBJECT;
    location ~ ^/(?<bucket>[a-z-]+)/?$ {{ rewrite ^ /listing/$bucket/$page last; }}
    location ~ ^/[a-z-]+/{prefix}$ {{ return 404; }}
    location /listing/ {{ internal; root {root}; default_type application/xml; }}
  }}
"""


@dataclass(frozen=True)
class Tree:
    """Files of one size, all in one folder."""

    name: str
    count: int
    size: int

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return self.count * self.size

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files."""
        if self.count == 1:
            return ("model.bin",)
        return tuple(f"part-{number:05}.bin" for number in range(self.count))


@dataclass(frozen=True)
class Origin:
    """A running server."""

    root: Path
    fast: int
    slow: int

    def endpoint(self, *, slow: bool) -> str:
        """The URL of the S3 server and of the web server."""
        return f"http://127.0.0.1:{self.slow if slow else self.fast}"

    def url(self, tree: Tree, name: str, *, slow: bool) -> str:
        """The URL of a file."""
        return f"{self.endpoint(slow=slow)}/{tree.name}/{PREFIX}/{name}"

    def path(self, tree: Tree, name: str) -> Path:
        """The path of a file on the server's disk."""
        return self.root / "www" / tree.name / PREFIX / name


@contextmanager
def serve(root: Path, trees: list[Tree], sums: set[str]) -> Iterator[Origin]:
    """Serve these trees from a directory in memory; those in `sums` with checksums too."""
    origin = Origin(root, *_free_ports(2))
    (root / "www").mkdir(parents=True)
    found: dict[str, str] = {}
    for tree in [*trees, Tree(WARM, 1, 1 << 20)]:
        _fill(origin, tree)
        _list(origin, tree.name, tree, sums=False)
        if tree.name in sums:
            (root / "www" / (tree.name + SUMS)).symlink_to(tree.name)
            _list(origin, tree.name + SUMS, tree, sums=True)
            for name in tree.files:
                found[f"/{tree.name}{SUMS}/{PREFIX}/{name}"] = _crc64nvme(origin.path(tree, name))
    config = root / "nginx.conf"
    config.write_text(_config(origin, found))
    # The server ends with this process, also if that is killed.
    command = ["setpriv", "--pdeathsig", "TERM", "nginx", "-c", str(config)]
    log = root / "nginx.log"
    with subprocess.Popen([*command, "-e", str(log)], start_new_session=True) as server:
        try:
            _wait(origin, server, log)
            yield origin
        finally:
            server.terminate()
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()


def _config(origin: Origin, sums: dict[str, str]) -> str:
    slow = f"limit_rate {SLOW_BYTES_PER_SECOND};"
    return _CONFIG.format(
        root=origin.root,
        prefix=PREFIX,
        sums="\n".join(f'    "HEAD {path}" "{value}";' for path, value in sums.items()),
        servers="".join(
            _SERVER.format(port=port, root=origin.root, prefix=PREFIX, extra=extra)
            for port, extra in ((origin.fast, ""), (origin.slow, slow))
        ),
    )


def _fill(origin: Origin, tree: Tree) -> None:
    origin.path(tree, "").mkdir(parents=True)
    for name in tree.files:
        with origin.path(tree, name).open("wb") as file:
            for start in range(0, tree.size, _CHUNK):
                file.write(os.urandom(min(_CHUNK, tree.size - start)))


def _list(origin: Origin, bucket: str, tree: Tree, *, sums: bool) -> None:
    """Write the pages of a bucket's listing, for both versions of the call."""
    folder = origin.root / "listing" / bucket
    folder.mkdir(parents=True)
    (folder / "none").write_text(_page(bucket, [], following=None))
    pages = range(0, tree.count, PAGE)
    for number, start in enumerate(pages):
        entries = [
            _listed(origin.path(tree, name), sums=sums) for name in tree.files[start : start + PAGE]
        ]
        following = f"page-{number + 1}" if number + 1 < len(pages) else None
        (folder / str(number)).write_text(_page(bucket, entries, following=following))


def _page(bucket: str, entries: list[str], *, following: str | None) -> str:
    more = (
        f"<NextContinuationToken>{following}</NextContinuationToken>"
        f"<NextMarker>{following}</NextMarker>"
        if following
        else ""
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket}</Name><Prefix>{PREFIX}/</Prefix><KeyCount>{len(entries)}</KeyCount>"
        f"<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{str(bool(following)).lower()}</IsTruncated>{more}"
        f"{''.join(entries)}</ListBucketResult>\n"
    )


def _listed(path: Path, *, sums: bool) -> str:
    found = path.stat()
    checksum = (
        "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
    )
    # nginx's format of an ETag.
    etag = f"&quot;{int(found.st_mtime):x}-{found.st_size:x}&quot;"
    return (
        f"<Contents><Key>{PREFIX}/{path.name}</Key>"
        f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag>"
        f"{checksum if sums else ''}<Size>{found.st_size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def _crc64nvme(path: Path) -> str:
    value = 0
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            value = checksums.crc64nvme(piece, value)
    return base64.b64encode(value.to_bytes(8, "big")).decode()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def _wait(origin: Origin, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    for port in (origin.fast, origin.slow):
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    text = log.read_text() if log.exists() else ""
                    raise BenchError(f"nginx does not start: {text[-1000:]}") from None
                time.sleep(0.05)


def remove(root: Path) -> None:
    """Delete the folder of a benchmark."""
    shutil.rmtree(root, ignore_errors=True)
