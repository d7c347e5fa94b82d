#!/usr/bin/env bash
# awscrt 0.38.1 (PyPI), seen with CPython 3.11 on Linux.
#
# awscrt.checksums.XXHash.update is annotated as taking bytes, bytearray and memoryview. It takes
# bytes alone: the others raise TypeError, a memoryview of bytes too, which is read-only. The CRC
# functions of the same module are annotated as taking bytes alone, and take all three.
#
# Seen:
#   annotation of XXHash.update: bytes, bytearray, memoryview
#   XXHash.update(bytes): taken
#   XXHash.update(bytearray): TypeError: argument 2 must be read-only bytes-like object, not bytearray
#   XXHash.update(memoryview): TypeError: argument 2 must be read-only bytes-like object, not memoryview
#   annotation of crc32: bytes
#   crc32(bytes): taken
#   crc32(bytearray): taken
#   crc32(memoryview): taken
#
# So who hashes a buffer that is used again, as a download does, makes a copy of each piece for
# XXHASH and none for CRC32. Fails if any of that changes.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check awscrt==0.38.1

"$work/venv/bin/python" - > "$work/seen" <<'PYTHON'
import inspect
from typing import get_args

from awscrt import checksums
from awscrt.checksums import XXHash


def said(call, piece):
    try:
        call(piece)
    except TypeError as error:
        return f"TypeError: {error}"
    return "taken"


update, crc32 = XXHash.update, checksums.crc32
pieces = (b"piece", bytearray(b"piece"), memoryview(b"piece"))
annotation = inspect.signature(update).parameters["input"].annotation
print("annotation of XXHash.update:", ", ".join(one.__name__ for one in get_args(annotation)))
for piece in pieces:
    new = XXHash.new_xxhash64()
    print(f"XXHash.update({type(piece).__name__}): {said(new.update, piece)}")
print("annotation of crc32:", inspect.signature(crc32).parameters["input"].annotation.__name__)
for piece in pieces:
    print(f"crc32({type(piece).__name__}): {said(crc32, piece)}")
PYTHON

sed -n '/^# Seen:/,/^#$/s/^#   //p' "$0" > "$work/expected"
if diff "$work/expected" "$work/seen"; then
  echo "as it was seen: $(wc -l < "$work/seen") lines"
else
  echo "changed: awscrt no longer does what is written above" >&2
  exit 1
fi
