"""Parsers of flag values: each returns the value, or raises ArgumentTypeError."""

from __future__ import annotations

import ipaddress
import re
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from agent.structs.credentials import Unlisted
from agent.structs.options import MAX_CONNECTIONS
from crds.quantity import parse_quantity

if TYPE_CHECKING:
    from agent.sources.addresses import Network
    from agent.structs.kubelet import FileSystem, Thresholds

_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?")
_HASH = re.compile("sha256:[0-9a-f]{64}")


def node_name(value: str) -> str:
    """A name that a Node can have."""
    if not _NODE_NAME.fullmatch(value):
        raise ArgumentTypeError(f"{value!r} is not the name of a node")
    return value


def namespace(value: str) -> str:
    """A name that a namespace can have."""
    if not _NAMESPACE.fullmatch(value):
        raise ArgumentTypeError(f"{value!r} is not the name of a namespace")
    return value


def unlisted(value: str) -> Unlisted:
    """What to do with credentials that do not list namespaces."""
    try:
        return Unlisted(value)
    except ValueError:
        raise ArgumentTypeError(f"{value!r} is neither allow nor refuse") from None


def volumes(value: str) -> str:
    """What a volume shows: "model" or "root"."""
    if value not in {"model", "root"}:
        raise ArgumentTypeError(f"{value!r} is neither model nor root")
    return value


def network(value: str) -> Network:
    """Addresses in CIDR notation."""
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        raise ArgumentTypeError(f"{value!r} is not a network: {error}") from error


def address(value: str) -> str:
    """An IPv4 or IPv6 address."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ArgumentTypeError(f"{value!r} is not an address such as 10.0.0.7") from None


def bind_address(value: str) -> tuple[str, int]:
    """An address to listen on, such as 127.0.0.1:8081, [::1]:8081 or :8081."""
    host, colon, port = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_host = not host or (":" in bare) == host.startswith("[")
    if not colon or not is_host or not port.isdecimal() or int(port) > 65535:
        raise ArgumentTypeError(f"{value!r} is not an address and a port, such as :8081")
    return (address(bare) if bare else ""), int(port)


def is_any(host: str) -> bool:
    """Whether the host of a bind address means all addresses."""
    return not host or ipaddress.ip_address(host).is_unspecified


def peer(value: str) -> str:
    """The name or address of another host with a port, such as 10.0.0.7:8089 or [::1]:8089."""
    host, _, port = value.rpartition(":")
    is_host = _HOST.fullmatch(host) if not host.startswith("[") else host.endswith("]")
    if not is_host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ArgumentTypeError(f"{value!r} is not a host and a port, such as 10.0.0.7:8089")
    return f"[{address(host[1:-1])}]:{port}" if host.startswith("[") else value


def claim(value: str) -> tuple[str, Path]:
    """The name of a claim, and the directory where the claim is mounted."""
    name, equals, directory = value.partition("=")
    if not equals or not directory or not _NODE_NAME.fullmatch(name):
        raise ArgumentTypeError(f"{value!r} is not a claim and its directory, as CLAIM=DIR")
    return name, Path(directory)


def seconds(value: str) -> float:
    """A duration in seconds, zero included."""
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ArgumentTypeError(f"{value!r} is not a number of seconds")
    return found


def count(value: str) -> int:
    """A whole number above zero."""
    if not value.isdecimal() or int(value) < 1:
        raise ArgumentTypeError(f"{value!r} is not a whole number above zero")
    return int(value)


def priority(value: str) -> int:
    """A priority that a cache can have."""
    if not re.fullmatch(r"-?[0-9]{1,10}", value) or not -(2**31) <= int(value) < 2**31:
        raise ArgumentTypeError(f"{value!r} is not a priority: a whole number of 32 bits")
    return int(value)


def retries(value: str) -> int:
    """A whole number, zero included."""
    if not value.isdecimal():
        raise ArgumentTypeError(f"{value!r} is not a whole number")
    return int(value)


def connections(value: str) -> int:
    """A number of connections from 1 to MAX_CONNECTIONS."""
    if not value.isdecimal() or not 1 <= int(value) <= MAX_CONNECTIONS:
        raise ArgumentTypeError(f"{value!r} is not a whole number from 1 to {MAX_CONNECTIONS}")
    return int(value)


def quantity(value: str) -> int:
    """Bytes above zero, such as 500Mi."""
    try:
        found = parse_quantity(value)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    if found < 1:
        raise ArgumentTypeError(f"{value!r} is not above zero; leave it out for no limit")
    return found


def kubelet_thresholds(value: str) -> Thresholds:
    """Thresholds of the kubelet, such as nodefs.available=10%, or off."""
    from agent.structs.kubelet import parse_thresholds  # noqa: PLC0415 - it imports pydantic

    try:
        return parse_thresholds(value)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def https_url(value: str) -> str:
    """The https URL of a server, with a path."""
    if not re.fullmatch(r"https://[^/?#@\s]+/[^?#\s]*", value):
        raise ArgumentTypeError(f"{value!r} is not a URL such as https://10.0.0.7:10250/configz")
    return value


def kubelet_file_systems(value: str) -> frozenset[FileSystem] | None:
    """File systems of the kubelet, separated by commas; None: to be found out."""
    from agent.structs.kubelet import FileSystem  # noqa: PLC0415 - it imports pydantic

    if value == "auto":
        return None
    try:
        return frozenset(map(FileSystem, value.split(",")))
    except ValueError:
        raise ArgumentTypeError(
            f"{value!r} is not auto, nodefs, imagefs or nodefs,imagefs"
        ) from None


def rate(value: str) -> int:
    """Bytes per second, such as 20Mi, or 0."""
    return 0 if value == "0" else quantity(value)


def uri(value: str) -> str:
    """A URI with a scheme. The sources decide which schemes are supported."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://.+", value):
        raise ArgumentTypeError(
            f"{value!r} is not a URI such as s3://bucket/path, hf://org/model or file:///path"
        )
    return value


def model_hash(value: str) -> str:
    """A hash in the form of LocalModelCache.spec.hash."""
    if not _HASH.fullmatch(value):
        raise ArgumentTypeError(f"{value!r} is not sha256: and 64 hexadecimal digits")
    return value


def switch(value: str) -> bool:
    """The value of a boolean environment variable."""
    found = value.lower()
    if found not in {"1", "true", "yes", "0", "false", "no"}:
        raise ArgumentTypeError(f"{value!r} is neither true nor false")
    return found in {"1", "true", "yes"}
