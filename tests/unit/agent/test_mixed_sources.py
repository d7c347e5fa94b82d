"""Of every kind of store: what is replaced half way is one version or none, and never a mixture."""

from __future__ import annotations

import base64
import json
import os
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.commands.assemble import own_credentials
from agent.sources import all_sources
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent.hostile import DATA, SIZE, Attempt, small_steps
from tests.unit.agent.servers import Handler, serving
from tests.unit.agent.test_mixed import NEW, Origin, nothing, only_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.disk.store import Store

__all__ = ["small_steps"]

pytestmark = pytest.mark.usefixtures("small_steps")

Listing = dict[str, Any] | list[Any] | str
COMMIT = "c" * 40


class Azure(Origin):
    """Blobs without ETags."""

    setting, uri = "AZURE_STORAGE_BLOB_ENDPOINT", "azure://acc.blob.core.windows.net/models/m"

    def listing(self, url: str) -> Listing | None:
        if "comp=list" not in url:
            return None
        return (
            "<EnumerationResults><Blobs><Blob><Name>m/m.bin</Name><Properties>"
            f"<Content-Length>{SIZE}</Content-Length></Properties></Blob></Blobs>"
            "</EnumerationResults>"
        )


class Google(Origin):
    """Objects of an emulator that looks at no generation and knows no checksum."""

    setting, uri = "STORAGE_EMULATOR_HOST", "gs://models/m"
    item: dict[str, str] = {"name": "m/m.bin", "size": str(SIZE), "generation": "1"}  # noqa: RUF012

    def listing(self, url: str) -> Listing | None:
        return None if "alt=media" in url else {"items": [self.item]}


class Summed(Google):
    """One that knows checksums."""

    item = Google.item | {"md5Hash": ""}


class Mirror(Origin):
    """A mirror of a hub, whose listing has sizes alone."""

    setting, uri = "HF_ENDPOINT", "hf://org/m"
    listed: dict[str, Any] = {"type": "file", "path": "m.bin", "size": SIZE}  # noqa: RUF012

    def listing(self, url: str) -> Listing | None:
        if "/revision/" in url:
            return {"sha": COMMIT}
        return [self.listed] if "/tree/" in url else None


class StrangeMirror(Mirror):
    """Its names of files are no hashes of their content."""

    listed = Mirror.listed | {"oid": "m.bin@1"}


class Hadoop(Origin):
    """A gateway that tells neither times nor numbers of files."""

    setting, uri = "HDFS_NAMENODE", "webhdfs://models/m.bin"
    status: dict[str, Any] = {"type": "FILE", "length": SIZE, "pathSuffix": ""}  # noqa: RUF012

    def listing(self, url: str) -> Listing | None:
        return None if "op=OPEN" in url else {"FileStatus": self.status}


def answering(origin: Any) -> Callable[[Handler, str], None]:
    def answer(handler: Handler, path: str) -> None:
        found = origin.listing(handler.path)
        if found is None:
            query = parse_qs(urlsplit(handler.path).query)
            if "offset" in query and "length" in query:
                start = int(query["offset"][0])
                assert (start, int(query["length"][0])) == (0, SIZE)
                origin.ranged = False
            origin(handler, path)
            return
        body = found if isinstance(found, str) else json.dumps(found)
        handler.reply(200, body.encode())

    return answer


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("pins", [nothing, only_time])
@pytest.mark.parametrize("kind", [Azure, Google, Mirror, StrangeMirror, Hadoop])
def test_what_nothing_pins_comes_in_one_answer(
    store: Store,
    kind: type[Any],
    pins: Callable[[bytes], dict[str, str]],
    in_place: bool,
) -> None:
    # An answer that is written while it is sent cannot be told where nothing is told.
    in_place = in_place and pins is only_time and kind not in {Google, Hadoop}
    origin = kind(pins, in_place=in_place)
    assert published(store, origin) in (DATA, NEW)
    assert all("Range" not in one for one in origin.asked[:1])


def published(store: Store, origin: Any) -> bytes:
    with serving(answering(origin)) as server:
        credentials = Credentials.of(
            {origin.setting: server.url, "AZURE_STORAGE_ANONYMOUS": "true"}
        )
        attempt = Attempt(store, origin.uri, credentials=credentials)
        attempt.download._sources = all_sources()
        attempt.download.run()
    found = attempt.tree
    assert found is not None
    return found["m.bin"]


def test_a_checksum_shows_a_mixture_of_generations(store: Store) -> None:
    origin: Any = Summed(nothing)
    value = base64.b64encode(zlib.crc32(b"").to_bytes(4, "big") * 4).decode()
    origin.item = Google.item | {"md5Hash": value}
    with pytest.raises(DownloadError) as caught:
        published(store, origin)
    assert caught.value.kind is FailureKind.CORRUPT


@pytest.mark.parametrize("by_rename", [False, True])
@pytest.mark.parametrize("scheme", ["file", "pvc"])
def test_a_local_file_that_is_replaced_while_it_is_read_is_changed(
    tmp_path: Path, scheme: str, by_rename: bool
) -> None:
    path = tmp_path / "m" / "m.bin"
    path.parent.mkdir()
    path.write_bytes(DATA)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    sources = all_sources(file_directories=[tmp_path], pvc_directories={"claim": tmp_path})
    uri = f"file://{tmp_path}/m" if scheme == "file" else "pvc://claim/m"
    model = sources.of(uri, "").resolve(uri, own_credentials(), None)
    (file,) = model.files
    with closing(model.read(file, 0, SIZE)) as body:
        assert body.read(SIZE // 2) == DATA[: SIZE // 2]
        if by_rename:
            (tmp_path / "new").write_bytes(NEW)
            (tmp_path / "new").rename(path)
            # The open file is still the former one.
            assert b"".join(iter(lambda: body.read(1 << 20), b"")) == DATA[SIZE // 2 :]
        else:
            path.write_bytes(NEW)
            with pytest.raises(DownloadError) as caught:
                list(iter(lambda: body.read(1 << 20), b""))
            assert caught.value.kind is FailureKind.CHANGED
    with pytest.raises(DownloadError) as caught:
        model.read(file, SIZE // 2, SIZE)
    assert caught.value.kind is FailureKind.CHANGED
