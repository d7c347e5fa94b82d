#!/usr/bin/env bash
# smart_open 9.0.2 (PyPI), with boto3 1.44.8 and azure-storage-blob 12.31.1, seen with CPython 3.11
# on Linux.
#
# A program that imports smart_open.http alone also imports the SDKs of the clouds that happen to be
# installed: the package's __init__ registers all transports, and each imports its SDK. The
# interface of the package has no switch against it.
#
# Seen:
#   imported by smart_open.http: azure.storage.blob, boto3, botocore, s3transfer
#   modules of the SDKs and of what only they need: more than 200
#
# So a command that reads one file by HTTP starts as slowly as one that uses S3, and it starts more
# slowly where a package that it does not use is installed beside it. Fails if that changes.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/bare"
python3 -m venv "$work/full"
"$work/bare/bin/pip" install --quiet --disable-pip-version-check smart_open==9.0.2 requests==2.34.2
"$work/full/bin/pip" install --quiet --disable-pip-version-check smart_open==9.0.2 requests==2.34.2 \
  boto3==1.44.8 azure-storage-blob==12.31.1

count='import sys, smart_open.http; print(len(sys.modules))'
bare=$("$work/bare/bin/python" -c "$count")
full=$("$work/full/bin/python" -c "$count")
{
  "$work/full/bin/python" - <<'PYTHON'
import sys

import smart_open.http  # noqa: F401

sdks = ("azure.storage.blob", "boto3", "botocore", "google.cloud.storage", "paramiko", "s3transfer")
print("imported by smart_open.http:", ", ".join(one for one in sdks if one in sys.modules))
PYTHON
  more=$([ $((full - bare)) -gt 200 ] && echo "more than 200" || echo "at most 200")
  echo "modules of the SDKs and of what only they need: $more"
} > "$work/seen"

sed -n '/^# Seen:/,/^#$/s/^#   //p' "$0" > "$work/expected"
if diff "$work/expected" "$work/seen"; then
  echo "as it was seen: $bare modules without the SDKs, $full with them"
else
  echo "changed: smart_open no longer does what is written above" >&2
  exit 1
fi
