#!/usr/bin/env bash
# kubernetes 37.0.1 (PyPI, Kubernetes' Python client), seen with CPython 3.11 on Linux.
#
# A Configuration that was loaded in a pod (InClusterConfigLoader, load_incluster_config) has a hook
# that runs with each request, to read the pod's token anew once a minute. The hook also sets host and
# ssl_ca_cert each time, to the API server's: what the program has set there after loading is lost by
# the first request, which goes to the API server with the path that was meant for the other host.
#
# Seen:
#   loaded: https://10.96.0.1:443, ca.crt
#   set by the program: https://kubelet.example:10250, kubelet-ca.crt
#   after a request: https://10.96.0.1:443, ca.crt
#   with try_refresh_token=False, after a request: https://kubelet.example:10250, kubelet-ca.crt
#
# So who calls another server with the pod's token, such as the kubelet of the node, passes the host
# with each call, or does without the hook. Fails if any of that changes.
set -euo pipefail

self=$(realpath "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kubernetes==37.0.1

cd "$work"
echo token > token
echo certificate > ca.crt
"$work/venv/bin/python" - > "$work/seen" <<'PYTHON'
from kubernetes import client
from kubernetes.config.incluster_config import InClusterConfigLoader


def load(**options):
    loader = InClusterConfigLoader(
        token_filename="token",
        cert_filename="ca.crt",
        environ={"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"},
        **options,
    )
    configuration = client.Configuration()
    loader.load_and_set(configuration)
    return configuration


def redirect(configuration):
    configuration.host = "https://kubelet.example:10250"
    configuration.ssl_ca_cert = "kubelet-ca.crt"


def request(configuration):
    """What each request does first: it asks for the token."""
    api = client.ApiClient(configuration)
    api.update_params_for_auth({}, [], ["BearerToken"], "/configz", "GET", None)


def show(when, configuration):
    print(f"{when}: {configuration.host}, {configuration.ssl_ca_cert}")


configuration = load()
show("loaded", configuration)
redirect(configuration)
show("set by the program", configuration)
request(configuration)
show("after a request", configuration)

configuration = load(try_refresh_token=False)
redirect(configuration)
request(configuration)
show("with try_refresh_token=False, after a request", configuration)
PYTHON

sed -n '/^# Seen:/,/^#$/s/^#   //p' "$self" > "$work/expected"
if diff "$work/expected" "$work/seen"; then
  echo "as it was seen: $(wc -l < "$work/seen") lines"
else
  echo "changed: kubernetes no longer does what is written above" >&2
  exit 1
fi
