"""The addresses that sources may have: some are refused to all, some to namespaces only. Pure.

The rules also apply to the IPv4 addresses inside an IPv6 address: a gateway may lead to them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _networks(*written: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, written))


# Metadata services of clouds: they give a node its credentials and secrets. Their addresses:
# RFC 3927 and RFC 4291: link-local, where most clouds have them (169.254.169.254 and others).
# AWS: docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html (::254),
#   docs.aws.amazon.com/eks/latest/userguide/pod-id-agent-setup.html (::23), and
#   docs.aws.amazon.com/whitepapers/latest/ipv6-on-aws/supporting-amazon-vpc-services.html.
# Google: cloud.google.com/compute/docs/metadata/querying-metadata.
# Azure: learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16.
# Oracle: github.com/oracle/oci-python-sdk, instance_principals_security_token_signer.py;
#   192.0.0.192 is that of Oracle Cloud Classic.
# Alibaba: www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata.
# Akamai: techdocs.akamai.com/cloud-computing/docs/metadata-service-api.
# Scaleway: docs.cloud-init.io/en/latest/reference/datasources/scaleway.html.
METADATA_SERVICES = _networks(
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::/64",
    "fd20:ce::254/128",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "fd00:c1::a9fe:a9fe/128",
    "100.100.100.200/32",
    "fd00:100::100:200/128",
    "fd00:a9fe:a9fe::1/128",
    "fd00:42::42/128",
)
# Addresses of no single host: unspecified, multicast, reserved, broadcast. Linux takes 0.0.0.0 for
# itself.
NO_HOSTS = _networks("0.0.0.0/8", "::/128", "224.0.0.0/4", "240.0.0.0/4", "ff00::/8")
LOOPBACK = _networks("127.0.0.0/8", "::1/128")
# Ports of Kubernetes' own parts on any node (kubernetes.io/docs/reference/networking/
# ports-and-protocols), and kubelet's read-only port.
CLUSTER_PORTS = frozenset({2379, 2380, 6443, 10250, 10255, 10256, 10257, 10259})

_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
# Prefixes of 96 bits before an IPv4 address: compatible (RFC 4291), translated (RFC 2765), NAT64
# (RFC 6052).
_PREFIXES_96 = _networks("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")
# NAT64 with a local prefix (RFC 8215), of a length that the agent does not know.
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
# The bytes of the IPv4 address for prefixes of 48, 56, 64 and 96 bits (RFC 6052).
_NAT64_BYTES = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), (12, 13, 14, 15))
# The interface identifiers of ISATAP (RFC 5214).
_ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")


@dataclass(frozen=True)
class Rules:
    """The addresses that the sources of some caches may have.

    An address in `refused` is always refused. One in `closed`, or with a port of `closed_ports`, is
    refused unless it is in `allowed` too.
    """

    refused: Sequence[Network] = METADATA_SERVICES + NO_HOSTS
    closed: Sequence[Network] = ()
    closed_ports: frozenset[int] = frozenset()
    allowed: Sequence[Network] = ()

    def check(self, address: str, port: int | None, *, own: bool = False) -> None:
        """Raises DownloadError (Denied) if the address, as text, is refused with this port.

        `own` is whether the address is one of this host. Raises ValueError for a text that is no
        address.
        """
        found = ipaddress.ip_address(address.partition("%")[0])
        meant = tuple(_meant(found))
        network = _first(self.refused, meant)
        if network is not None:
            raise DownloadError(
                FailureKind.DENIED,
                f"the source is at {address}, in {network}, which the agent does not fetch from: "
                "give another sourceModelUri",
            )
        network = LOOPBACK[0] if own and self.closed else _first(self.closed, meant)
        if network is None and port not in self.closed_ports:
            return
        if all(_first(self.allowed, [one]) is not None for one in meant):
            return
        what = f"port {port}" if network is None else f"in {network}"
        what = "of this host" if own else what
        raise DownloadError(
            FailureKind.DENIED,
            f"the source is at {address}, {what}, which is the node's or the cluster's own and "
            "which no cache of a namespace is fetched from: give another sourceModelUri, or have "
            "the network named by the agent's --allow-network",
        )


DEFAULT_RULES = Rules()
# For requests whose addresses no tenant can choose.
ANYWHERE = Rules(refused=())


def rules_for_namespaces(
    refused: Iterable[Network], own: Iterable[str], allowed: Iterable[Network]
) -> Rules:
    """The rules for caches of namespaces.

    `own` are the addresses of the node and the API server, as text; `refused` and `allowed` are
    the administrator's flags.
    """
    return Rules(
        refused=(*DEFAULT_RULES.refused, *refused),
        closed=(*LOOPBACK, *map(ipaddress.ip_network, own)),
        closed_ports=CLUSTER_PORTS,
        allowed=tuple(allowed),
    )


def _first(networks: Iterable[Network], addresses: Sequence[Address]) -> Network | None:
    """The first network that one of the addresses is in."""
    return next((net for net in networks if any(one in net for one in addresses)), None)


def _meant(found: Address) -> Iterator[Address]:
    """The address, and the IPv4 addresses to which a gateway may translate it."""
    if isinstance(found, ipaddress.IPv4Address):
        yield found
        return
    if found.ipv4_mapped is not None:
        # The same host: no packet carries the mapped form.
        yield found.ipv4_mapped
        return
    yield found
    for inner in _embedded(found):
        # 0.0.0.0/8 has no hosts: those come from ::1, and from prefixes of a wrong length.
        if inner not in _THIS_NETWORK:
            yield inner


def _embedded(found: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    raw = found.packed
    if any(found in network for network in _PREFIXES_96) or raw[8:12] in _ISATAP:
        yield ipaddress.IPv4Address(raw[12:])
    if found in _LOCAL_NAT64:
        for places in _NAT64_BYTES:
            yield ipaddress.IPv4Address(bytes(raw[place] for place in places))
    if found.sixtofour is not None:
        yield found.sixtofour
    if found.teredo is not None:
        yield from found.teredo
