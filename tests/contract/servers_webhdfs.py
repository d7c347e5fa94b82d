"""A Hadoop file system's WebHDFS on loopback: a namenode that redirects to a datanode."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.unit.agent.servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.unit.agent.servers import Handler, Server

PREFIX = "/webhdfs/v1"


@dataclass
class Stored:
    content: bytes
    modified: int
    number: int
    kind: str = "FILE"


@dataclass
class FileSystem:
    """Files by path. `users` and `tokens` may read; with `kerberos` a name alone is no login."""

    files: dict[str, Stored] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    kerberos: bool = False
    # The exception and status of the answer to everything.
    refuse: tuple[int, str] | None = None
    # Replace this file while its next range is sent.
    replace_during: str | None = None
    # Send so many bytes more than asked for.
    excess: int = 0
    datanode: str = ""
    clock: int = 1_700_000_000_000

    def write(self, path: str, content: bytes) -> None:
        """Make a file anew, as `hdfs dfs -put -f` does."""
        self.clock += 1000
        self.files[path] = Stored(content, self.clock, len(self.files) + self.clock)

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        for path, content in files.items():
            self.write(f"{folder}/{path}", content)

    def __call__(self, handler: Handler, _path: str) -> None:
        """The namenode."""
        parts = urlsplit(handler.path)
        if not parts.path.startswith(PREFIX):
            return handler.reply(404, b"<html>no</html>")
        path = unquote(parts.path.removeprefix(PREFIX))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        denial = self.refuse or self._denial(query)
        if denial is not None:
            return _refuse(handler, *denial)
        return self._answer(handler, path, query)

    def _denial(self, query: dict[str, str]) -> tuple[int, str] | None:
        if "delegation" in query:
            return None if query["delegation"] in self.tokens else (403, "InvalidToken")
        if self.kerberos:
            return 401, ""
        user = query.get("doas") or query.get("user.name") or "dr.who"
        return None if user in self.users else (403, "AccessControlException")

    def _answer(self, handler: Handler, path: str, query: dict[str, str]) -> None:
        stored = self.files.get(path)
        children = self._children(path)
        if stored is None and not children:
            return _refuse(handler, 404, "FileNotFoundException")
        if query["op"] == "GETFILESTATUS":
            status = _status("", stored) if stored else _folder("")
            return _reply(handler, {"FileStatus": status})
        if query["op"] == "LISTSTATUS":
            listed = [_status("", stored)] if stored else list(children.values())
            return _reply(handler, {"FileStatuses": {"FileStatus": listed}})
        if stored is None or int(query["offset"]) > len(stored.content):
            return _refuse(handler, 403, "IOException")
        there = f"{self.datanode}{PREFIX}{quote(path)}?{urlsplit(handler.path).query}"
        return handler.reply(307, b"", {"Location": f"{there}&namenoderpcaddress=nn:8020"})

    def _children(self, path: str) -> dict[str, dict[str, object]]:
        children: dict[str, dict[str, object]] = {}
        for name in sorted(self.files):
            if name.startswith(f"{path}/"):
                first, _, rest = name.removeprefix(f"{path}/").partition("/")
                children[first] = _folder(first) if rest else _status(first, self.files[name])
        return children

    def data(self, handler: Handler, _path: str) -> None:
        """The datanode: 200 and just the range, never 206."""
        parts = urlsplit(handler.path)
        path = unquote(parts.path.removeprefix(PREFIX))
        query = parse_qs(parts.query)
        content = self.files[path].content
        start = int(query["offset"][0])
        stop = start + int(query["length"][0]) + self.excess if "length" in query else len(content)
        if self.replace_during == path:
            self.replace_during = None
            self.write(path, content[::-1])
        handler.reply(200, content[start:stop])


def _status(name: str, stored: Stored) -> dict[str, object]:
    return {
        "pathSuffix": name,
        "type": stored.kind,
        "length": len(stored.content),
        "modificationTime": stored.modified,
        "fileId": stored.number,
        "owner": "ada",
        "permission": "644",
    }


def _folder(name: str) -> dict[str, object]:
    return {"pathSuffix": name, "type": "DIRECTORY", "length": 0, "modificationTime": 1}


def _reply(handler: Handler, answer: dict[str, object]) -> None:
    handler.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


def _refuse(handler: Handler, status: int, exception: str) -> None:
    if not exception:
        handler.reply(
            status, b"<html>Authentication required</html>", {"WWW-Authenticate": "Negotiate"}
        )
        return
    answer = {"exception": exception, "message": "no", "javaClassName": f"org.{exception}"}
    body = json.dumps({"RemoteException": answer}).encode()
    handler.reply(status, body, {"Content-Type": "application/json"})


@dataclass
class RunningFileSystem:
    system: FileSystem
    namenode: Server
    datanode: Server

    @property
    def uri(self) -> str:
        return f"webhdfs://127.0.0.1:{self.namenode.server_port}"


@contextmanager
def serving_files(system: FileSystem) -> Iterator[RunningFileSystem]:
    with serving(system) as namenode, serving(system.data) as datanode:
        system.datanode = datanode.url
        yield RunningFileSystem(system, namenode, datanode)


# What `hdfs dfs -ls -R` and `-cat` do, on a folder of this machine that is named by $HDFS_ROOT.
PROGRAM = """#!{python}
import os, sys, time
root = os.environ["HDFS_ROOT"]
verb, target = sys.argv[2], sys.argv[-1]
path = target.partition("://")[2].partition("/")[2] if "://" in target else target
here = os.path.join(root, path.lstrip("/"))
if "SAY" in os.environ:
    sys.exit(os.environ["SAY"])
if not os.path.exists(here):
    sys.exit("ls: `" + target + "': No such file or directory")
if verb == "-cat":
    data = open(here, "rb").read()
    sys.stdout.buffer.write(data[: int(os.environ.get("CUT", len(data)))])
    sys.exit(1 if "CUT" in os.environ else 0)
def show(kind, place, name):
    found = os.stat(place)
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(found.st_mtime))
    size = 0 if kind == "d" else found.st_size
    print(kind + "rw-r--r--+  3 ada users ", size, when, name)
if os.path.isfile(here):
    show("-", here, target)
for folder, folders, names in sorted(os.walk(here)):
    for name in folders + names:
        place = os.path.join(folder, name)
        shown = target + place[len(here):]
        show("d" if name in folders else "-", place, shown)
"""
