#!/usr/bin/env bash
# msgspec 0.22.0 (PyPI), seen with CPython 3.11 on Linux.
#
# A field of type msgspec.Raw keeps its JSON as it is, and a field that a Struct does not have is
# skipped: neither builds an object. Both count each level of nesting nevertheless, and end at Python's
# recursion limit with RecursionError, which is no msgspec.MsgspecError.
#
# Seen:
#   500 levels in a Raw: kept
#   500 levels in a field that the Struct lacks: skipped
#   5000 levels in a Raw: RecursionError, a MsgspecError: False
#   5000 levels in a field that the Struct lacks: RecursionError, a MsgspecError: False
#   5000 levels in a Raw, with a recursion limit of 6000: kept
#
# So whoever keeps each object of a request as Raw, in order to decode one by one and to set a bad one
# aside, loses the whole request by one object with 1000 levels, of which the Kubernetes API server
# stores 10,000. Fails if that changes.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check msgspec==0.22.0

"$work/env/bin/python" > "$work/seen" <<'PYTHON'
import sys

import msgspec


class Kept(msgspec.Struct):
    value: msgspec.Raw


class Without(msgspec.Struct):
    name: str = ""


def try_to(decode, word, levels, where, more=""):
    body = b'{"value": ' + b"[" * levels + b"]" * levels + b"}"
    try:
        msgspec.json.decode(body, type=decode)
        found = word
    except Exception as error:
        found = f"{type(error).__name__}, a MsgspecError: {isinstance(error, msgspec.MsgspecError)}"
    print(f"{levels} levels in a {where}{more}: {found}")


for levels in (500, 5000):
    try_to(Kept, "kept", levels, "Raw")
    try_to(Without, "skipped", levels, "field that the Struct lacks")
sys.setrecursionlimit(6000)
try_to(Kept, "kept", 5000, "Raw", ", with a recursion limit of 6000")
PYTHON

sed -n '/^# Seen:/,/^#$/s/^#   //p' "$0" > "$work/expected"
if diff "$work/expected" "$work/seen"; then
  echo "as it was seen"
else
  echo "changed: msgspec no longer does what is written above" >&2
  exit 1
fi
