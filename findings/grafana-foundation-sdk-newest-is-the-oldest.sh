#!/usr/bin/env bash
# grafana-foundation-sdk 1769699379!11.6.0 and others (PyPI, Grafana's builders of dashboards), seen with
# pip 23.2.1 and CPython 3.11.
#
# The package has a version for each supported version of Grafana, and an epoch before it, the build's time.
# Of one release, Grafana 11.6 is built first and 10.1 last: for pip, whose comparison begins with the epoch,
# the newest is the one for the oldest Grafana. Without an epoch, a requirement means epoch 0, which is below
# all of them: `>=11.6` is met by 10.1, and `==11.6.0` by nothing.
#
# Seen, with `<1769699999!0` in place of the date of that release:
#   grafana-foundation-sdk: 1769699998!10.1.0, schema 36
#   grafana-foundation-sdk>=11.6: 1769699998!10.1.0, schema 36
#   grafana-foundation-sdk==11.6.0: no such version
#   grafana-foundation-sdk==1769699379!11.6.0: 1769699379!11.6.0, schema 41
#
# So who builds dashboards pins the epoch too, and looks at each update. Fails if any of that changes.
set -euo pipefail

self=$(realpath "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip=("$work/venv/bin/pip" --quiet --disable-pip-version-check)

show() {
  echo -n "$1: "
  if "${pip[@]}" install "$1$2" 2> /dev/null; then
    "$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from grafana_foundation_sdk.builders.dashboard import Dashboard

schema = Dashboard("any").build().schema_version
print(f"{version('grafana-foundation-sdk')}, schema {schema}")
PYTHON
    "${pip[@]}" uninstall --yes grafana-foundation-sdk
  else
    echo "no such version"
  fi
}

cd "$work"
before='<1769699999!0'
{
  show grafana-foundation-sdk "$before"
  show 'grafana-foundation-sdk>=11.6' ",$before"
  show grafana-foundation-sdk==11.6.0 ''
  show 'grafana-foundation-sdk==1769699379!11.6.0' ''
} > seen

sed -n '/^# Seen/,/^#$/s/^#   //p' "$self" > expected
if diff expected seen; then
  echo "as it was seen: $(wc -l < seen) lines"
else
  echo "changed: grafana-foundation-sdk no longer does what is written above" >&2
  exit 1
fi
