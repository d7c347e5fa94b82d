from __future__ import annotations

import ipaddress

import pytest

from agent.sources.addresses import (
    ANYWHERE,
    CLUSTER_PORTS,
    DEFAULT_RULES,
    Rules,
    rules_for_namespaces,
)
from agent.structs.failures import DownloadError, FailureKind

METADATA = [
    "169.254.169.254",
    "169.254.170.23",
    "fe80::a9fe:a9fe",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:c1::a9fe:a9fe",
    "100.100.100.200",
    "fd00:100::100:200",
    "fd00:a9fe:a9fe::1",
    "fd00:42::42",
]
NO_HOSTS = ["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1"]
# Forms of IPv6 that have an IPv4 address inside: {} is it as text, {a} and {b} its halves in
# hexadecimal, {x} and {y} those of its complement.
FORMS = [
    "::ffff:{}",
    "::{}",
    "::ffff:0:{}",
    "64:ff9b::{}",
    "64:ff9b:1::{}",
    "64:ff9b:1:1:1:1:{}",
    "64:ff9b:1:{a}:{b1}:{b2}00::",
    "64:ff9b:1:{a1}:{a2}:{b}::",
    "64:ff9b:1:0:{a1}:{a2b1}:{b2}00:0",
    "2002:{a}:{b}::1",
    "2001:0:{a}:{b}:8000:63bf:f7f7:f7f6",
    "2001:0:4136:e378:8000:63bf:{x}:{y}",
    "2001:db8::5efe:{}",
    "2001:db8::200:5efe:{}",
    "fd12::200:5efe:{}",
]
OWN = rules_for_namespaces([], ["10.1.2.3", "2001:db8::7"], [])


def refused(rules: Rules, address: str, port: int = 443, *, own: bool = False) -> str:
    """The message of the refusal; empty: it is let through."""
    try:
        rules.check(address, port, own=own)
    except DownloadError as error:
        # A failure of the other kinds is none of the rules'.
        return error.message if error.kind is FailureKind.DENIED else ""
    return ""


def form(written: str, inner: str) -> str:
    raw = ipaddress.IPv4Address(inner).packed
    flipped = bytes(byte ^ 0xFF for byte in raw)
    return written.format(
        inner,
        a=raw[:2].hex(),
        b=raw[2:].hex(),
        x=flipped[:2].hex(),
        y=flipped[2:].hex(),
        a1=raw[:1].hex(),
        a2=raw[1:2].hex(),
        b1=raw[2:3].hex(),
        b2=raw[3:].hex(),
        a2b1=raw[1:3].hex(),
    )


@pytest.mark.parametrize("address", METADATA + NO_HOSTS)
def test_metadata_services_and_what_is_no_host_are_refused_to_all(address: str) -> None:
    everything = rules_for_namespaces([], [], [ipaddress.ip_network("::/0")])
    for rules in (DEFAULT_RULES, OWN, everything):
        assert "give another sourceModelUri" in refused(rules, address)
    assert not refused(ANYWHERE, address)


@pytest.mark.parametrize("written", FORMS)
def test_an_address_inside_another_counts(written: str) -> None:
    for inner in ("169.254.169.254", "168.63.129.16", "100.100.100.200"):
        for rules in (DEFAULT_RULES, OWN):
            assert refused(rules, form(written, inner))
    for inner in ("127.0.0.1", "10.1.2.3"):
        assert refused(OWN, form(written, inner))
        assert not refused(DEFAULT_RULES, form(written, inner))
    assert not refused(OWN, form(written, "93.184.216.34"))
    named = Rules(refused=(ipaddress.ip_network("10.0.0.0/8"),))
    assert refused(named, form(written, "10.9.9.9"))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "2001:db8::7"])
def test_the_nodes_own_addresses_are_refused_to_namespaces(address: str) -> None:
    assert "--allow-network" in refused(OWN, address)
    assert not refused(DEFAULT_RULES, address)


def test_addresses_of_this_very_host_are_refused_to_namespaces() -> None:
    assert "of this host" in refused(OWN, "10.7.7.7", own=True)
    assert not refused(DEFAULT_RULES, "10.7.7.7", own=True)
    allowed = rules_for_namespaces([], [], [ipaddress.ip_network("10.7.0.0/16")])
    assert not refused(allowed, "10.7.7.7", own=True)


@pytest.mark.parametrize("port", sorted(CLUSTER_PORTS))
def test_ports_of_the_clusters_parts_are_refused_to_namespaces(port: int) -> None:
    assert f"port {port}" in refused(OWN, "10.9.9.9", port)
    assert not refused(DEFAULT_RULES, "10.9.9.9", port)


def test_what_the_administrator_allows_is_for_namespaces_too() -> None:
    loopback = ipaddress.ip_network("127.0.0.0/8")
    rules = rules_for_namespaces([], ["10.1.2.3"], [loopback])
    assert not refused(rules, "127.0.0.1")
    assert not refused(rules, "127.0.0.1", 10250)
    assert not refused(rules, "::ffff:127.0.0.1")
    assert refused(rules, "10.1.2.3")
    assert refused(rules, "::1")
    # What is inside is allowed, what it is inside of is another address.
    assert refused(rules, "64:ff9b::127.0.0.1")


def test_what_the_administrator_refuses_is_refused_although_it_is_allowed_too() -> None:
    ten = ipaddress.ip_network("10.0.0.0/8")
    assert refused(rules_for_namespaces([ten], [], [ten]), "10.1.1.1")


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "93.184.216.34", "2606::1", "100.100.100.201", "64:ff9b:1::5db8:d822", "fd00::1"],
)
def test_other_addresses_are_let_through(address: str) -> None:
    for rules in (DEFAULT_RULES, OWN):
        assert not refused(rules, address)
