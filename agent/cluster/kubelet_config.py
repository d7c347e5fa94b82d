"""Reads the configuration that a kubelet runs with, from /configz of the kubelet's own API.

The kubelet asks the API server whether the agent's ServiceAccount may `get` `nodes/configz`.
"""

from __future__ import annotations

import copy
import json
from typing import Any
from urllib.parse import urlsplit

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from agent.cluster.kube_watch import CALL_TIMEOUT, reason

# A configuration has a few kilobytes.
_MOST_BYTES = 1 << 20
_NO_TLS = (
    "the kubelet needs a serving certificate of the cluster's authority for its address "
    "(serverTLSBootstrap)"
)
_TODO = {
    401: "the kubelet must accept tokens of ServiceAccounts (authentication.webhook.enabled)",
    403: "let the agent's ServiceAccount get nodes/configz (Kubernetes 1.33 or newer)",
}


class KubeletConfigError(Exception):
    """The kubelet's configuration cannot be read. The message says why, and what to do."""


class KubeletConfig:
    """The configuration of the kubelet with this URL of /configz.

    The agent's credentials are sent only to a server whose certificate the cluster's authority has
    signed.
    """

    def __init__(self, url: str, api_client: client.ApiClient) -> None:
        self._url = url
        parts = urlsplit(url)
        settings = copy.deepcopy(api_client.configuration)
        settings.verify_ssl = True
        settings.tls_server_name = None
        settings.proxy = None
        self._host, self._path = f"{parts.scheme}://{parts.netloc}", parts.path
        self._client = client.ApiClient(settings)

    def read(self) -> object:
        """The KubeletConfiguration as it is now, as JSON. Raises KubeletConfigError."""
        try:
            return self._read()
        except ApiException as error:
            # The library's exception wraps an SSLError; its text has two lines.
            cause = str(error.reason).replace("\n", ": ")
            raise self._error(f"{cause}: {_NO_TLS}") from None
        except urllib3.exceptions.HTTPError as error:
            raise self._error(reason(error)) from None
        except (ValueError, KeyError, TypeError):
            raise self._error("the answer is no configuration of a kubelet") from None

    def _read(self) -> object:
        # In each call, because this refreshes the token. In a pod that also sets the host of the
        # client to the API server's.
        _, url, headers, _, _ = self._client.param_serialize(
            "GET", self._path, auth_settings=["BearerToken"], _host=self._host
        )
        called: Any = self._client.call_api("GET", url, headers, _request_timeout=CALL_TIMEOUT)
        answer: urllib3.HTTPResponse = called.response
        try:
            if answer.status != 200:
                todo = _TODO.get(answer.status, "")
                raise self._error(
                    f"{answer.status} {answer.reason}" + (f": {todo}" if todo else "")
                )
            body = answer.read(_MOST_BYTES)
        finally:
            answer.release_conn()
        found: object = json.loads(body)["kubeletconfig"]
        return found

    def _error(self, why: str) -> KubeletConfigError:
        return KubeletConfigError(f"{self._url}: {why}")
