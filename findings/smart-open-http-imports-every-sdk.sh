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
#   modules more than without the SDKs: over 200
#
# So a command that reads one file by HTTP loads the SDK for S3 too, and it loads more where a package
# that it does not use is installed beside it. Fails if that changes.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/bare"
python3 -m venv "$work/full"
"$work/bare/bin/pip" install --quiet --disable-pip-version-check smart_open==9.0.2 requests==2.34.2
"$work/full/bin/pip" install --quiet --disable-pip-version-check smart_open==9.0.2 requests==2.34.2 \
  boto3==1.44.8 azure-storage-blob==12.31.1

bare=$("$work/bare/bin/python" -c 'import sys, smart_open.http; print(len(sys.modules))')
"$work/full/bin/python" - "$bare" > "$work/seen" <<'PYTHON'
import sys

import smart_open.http  # noqa: F401

more = len(sys.modules) - int(sys.argv[1])
sdks = ("azure.storage.blob", "boto3", "botocore", "google.cloud.storage", "paramiko", "s3transfer")
print("imported by smart_open.http:", ", ".join(one for one in sdks if one in sys.modules))
print("modules more than without the SDKs:", "over 200" if more > 200 else more)
PYTHON

sed -n '/^# Seen:/,/^#$/s/^#   //p' "$0" > "$work/expected"
if diff "$work/expected" "$work/seen"; then
  echo "as it was seen: $bare modules without the SDKs"
else
  echo "changed: smart_open no longer does what is written above" >&2
  exit 1
fi
