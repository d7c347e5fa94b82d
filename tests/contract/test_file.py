from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.sources.file import FileSource
from tests.contract.suite import SourceContract, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class Directory(Store):
    public = True
    checksums = False

    def __init__(self, root: Path, prefix: str, source: FileSource) -> None:
        self.root = root
        self.prefix = prefix
        self.source = source
        self._made = 0

    def put(self, files: Mapping[str, bytes]) -> str:
        self._made += 1
        for path, content in files.items():
            place = self.root / f"m {self._made}" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return f"{self.prefix}/m%20{self._made}"

    def change(self, uri: str, path: str, content: bytes) -> None:
        place = self.root / uri.rpartition("/")[2].replace("%20", " ") / path
        before = place.stat().st_mtime_ns
        place.write_bytes(content)
        os.utime(place, ns=(before + 1, before + 1))


class TestFile(SourceContract):
    @pytest.fixture(scope="class", params=["file", "pvc"])
    @classmethod
    def store(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Store]:
        root = tmp_path_factory.mktemp("named")
        if request.param == "file":
            yield Directory(root, f"file://{root}", FileSource([root]))
        else:
            yield Directory(root, "pvc://weights", FileSource([], {"weights": root}))
