"""What tenants' settings and caches make grow, and what is left of it when they are gone."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from agent.credentials.settings import (
    MAX_AUTHORITIES_BYTES,
    Setting,
    check_authorities,
)
from agent.jobs.adoption import adopting
from agent.jobs.reservations import Coming, Reservations
from agent.sources import bounded_cache
from agent.sources.azure import AzureSource
from agent.sources.bounded_cache import IDLE_SECONDS, LIFE_SECONDS, BoundedCache
from agent.sources.gs import GoogleStorageSource
from agent.sources.s3 import S3Source
from agent.sources.transport import MAX_KEPT, MAX_WAYS, Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError
from agent.structs.requests import Request
from tests.unit.agent import inside
from tests.unit.agent.certificates import make_authority
from tests.unit.agent.helpers import local_model, set_aws
from tests.unit.agent.servers import Buckets, WebFiles, serving

if TYPE_CHECKING:
    from pathlib import Path

    from crds.node import LocalModel
    from tests.unit.agent.servers import Server
    from tests.unit.agent.world import World

TENANTS = 12


def test_only_the_last_ones_are_kept() -> None:
    closed: list[int] = []
    things: BoundedCache[int, int] = BoundedCache(3, closed.append, clock=lambda: 0.0)
    for number in (0, 1, 2, 0, 3, 0, 4):
        things.get(number, lambda number=number: number)  # type: ignore[misc]
    assert len(things) == 3
    assert closed == [1, 2]


def test_what_nobody_asks_for_goes() -> None:
    closed: list[str] = []
    now = 0.0
    things: BoundedCache[str, str] = BoundedCache(3, closed.append, clock=lambda: now)
    things.get("a", lambda: "a")
    now = 100.0
    things.get("b", lambda: "b")
    now = IDLE_SECONDS
    things.tidy()
    assert closed == ["a"]
    things.get("b", lambda: pytest.fail("it is here"))
    now = 2 * IDLE_SECONDS - 1
    things.tidy()
    assert len(things) == 1
    now = 2 * IDLE_SECONDS
    things.tidy()
    assert closed == ["a", "b"]


def test_what_is_idle_is_made_anew_without_a_tidy() -> None:
    closed: list[float] = []
    now = 0.0

    def clock() -> float:
        return now

    things: BoundedCache[str, float] = BoundedCache(3, closed.append, clock=clock)
    things.get("a", clock)
    now = IDLE_SECONDS
    assert things.get("a", clock) == IDLE_SECONDS
    assert closed == [0.0]


def test_what_is_always_used_is_made_anew_after_its_life() -> None:
    closed: list[float] = []
    now = 0.0

    def clock() -> float:
        return now

    things: BoundedCache[str, float] = BoundedCache(3, closed.append, clock=clock)
    found = set()
    while now <= 2 * LIFE_SECONDS:
        found.add(things.get("a", clock))
        now += IDLE_SECONDS / 2
    assert found == {0.0, LIFE_SECONDS, 2 * LIFE_SECONDS}
    assert closed == [0.0, LIFE_SECONDS]
    assert len(things) == 1


def test_what_cannot_be_made_is_not_kept() -> None:
    things: BoundedCache[str, float] = BoundedCache(3)
    with pytest.raises(ZeroDivisionError):
        things.get("a", lambda: 1 / 0)
    assert len(things) == 0
    assert things.get("a", lambda: 1.0) == 1.0


def ask(source: S3Source | AzureSource | GoogleStorageSource, uri: str, *all_: Credentials) -> None:
    for credentials in all_:
        with suppress(DownloadError):
            source.resolve(uri, credentials, None)


def test_certificates_of_tenants_are_in_no_file_and_go_with_their_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_aws(monkeypatch, "AWS_CA_BUNDLE")
    authority = make_authority(tmp_path / "authority")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    transports = Transports(max_connections=2)
    source = S3Source(transports)
    with serving(Buckets({"b": {"m/w.bin": b"x"}}), tls=authority.context) as server:
        for number in range(TENANTS):
            credentials = Credentials.of(
                {
                    "AWS_ACCESS_KEY_ID": "a",
                    "AWS_SECRET_ACCESS_KEY": "b",
                    "AWS_ENDPOINT_URL": server.url,
                    # The same certificate, with what nobody reads.
                    "AWS_CA_BUNDLE_PEM": f"Größe {number}\n{authority.pem}",
                }
            )
            assert source.resolve("s3://b/m", credentials, None).files[0].size == 1
    assert list(temporary.iterdir()) == []
    assert len(transports._by_trust) == len(source._clients) == TENANTS
    monkeypatch.setattr(bounded_cache, "IDLE_SECONDS", 0.0)
    transports.tidy()
    assert len(transports._by_trust) == len(source._clients) == 0


def test_certificates_that_are_none_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    set_aws(monkeypatch, "AWS_CA_BUNDLE")
    for pem in ("s3cret", "-----BEGIN CERTIFICATE-----\nczNjcmV0\n-----END CERTIFICATE-----"):
        credentials = Credentials.of({"AWS_CA_BUNDLE_PEM": pem})
        with pytest.raises(DownloadError) as wrong:
            S3Source(Transports(max_connections=1)).resolve("s3://b/m", credentials, None)
        assert "are no certificates" in wrong.value.message
        assert "s3cret" not in wrong.value.message


def test_certificates_of_any_size_are_not_kept() -> None:
    pem = "-----BEGIN CERTIFICATE-----\n"
    largest = Setting(pem.ljust(MAX_AUTHORITIES_BYTES, "x"), "certificate of k")
    assert check_authorities(largest) == largest.value
    with pytest.raises(DownloadError, match="certificate of k has 257 KiB"):
        check_authorities(Setting(f"{largest.value}x", "certificate of k"))
    # Of both sets of sources together, at four times their bytes, in 512 MiB.
    assert 2 * MAX_KEPT * 4 * MAX_AUTHORITIES_BYTES <= 64 << 20


def test_hosts_that_a_transport_knows_are_bounded() -> None:
    session = Transports(max_connections=2).trusting().session
    for number in range(2 * MAX_WAYS + 5):
        session._way(f"http://host-{number}.example/m")
    assert len(session._ways) <= MAX_WAYS


def test_what_sources_keep_for_tenants_is_bounded_and_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.sources.transport.MAX_KEPT", TENANTS // 2)
    transports = Transports(max_connections=2)
    azure, google = AzureSource(transports), GoogleStorageSource(transports)
    with serving(lambda handler, _: handler.reply(404)) as server:
        ask(
            azure,
            "https://acc.blob.core.windows.net/container/model",
            *(
                Credentials.of({"AZURE_STORAGE_BLOB_ENDPOINT": server.url, "n": str(n)})
                for n in range(TENANTS)
            ),
        )
        ask(
            google,
            "gs://bucket/model",
            *(
                Credentials.of({"STORAGE_EMULATOR_HOST": server.url, "n": str(n)})
                for n in range(TENANTS)
            ),
        )
        assert server.seen
    assert len(azure._accesses) == len(google._clients) == TENANTS // 2
    monkeypatch.setattr(bounded_cache, "IDLE_SECONDS", 0.0)
    transports.tidy()
    assert len(azure._accesses) == len(google._clients) == 0


def left(world: World) -> dict[str, int]:
    """What a loop still knows of models, by where."""
    return {
        **inside.kept(world.loop),
        "origins": len(world.engine._schedule._origins.in_use),
        "jobs": len(world.engine._schedule._jobs),
    }


def of_tenants(servers: list[Server], kind: str) -> list[LocalModel]:
    return [
        local_model(
            f"{kind}-{number}", f"{server.url}/{kind}-{number}.bin", namespace=f"team-{number}"
        )
        for number, server in enumerate(servers)
    ]


def test_nothing_is_left_of_tenants_whose_caches_are_gone(world: World) -> None:
    world.store.views.makes = True
    files = {
        f"/{kind}-{number}.bin": kind.encode() * 100
        for kind in ("good", "other")
        for number in range(TENANTS)
    }
    servers: list[Server] = []

    def serve(count: int) -> None:
        if count:
            with serving(WebFiles(files)) as server:
                servers.append(server)
                serve(count - 1)
            return
        # Copies that come, downloads that fail, and folders that are others'.
        wanted = [
            entry for kind in ("good", "other", "missing") for entry in of_tenants(servers, kind)
        ]
        for entry in of_tenants(servers, "other"):
            folder = world.store.path(entry.key)
            folder.mkdir()
            (folder / f"{entry.model_name}.bin").write_bytes(b"something else")
        world.want(*wanted)
        world.settle()
        there = left(world)
        assert there["folders of volumes"] == 3 * TENANTS
        assert there["refused folders"] == TENANTS
        assert there["retries"] == there["failures that were told"] == 2 * TENANTS
        world.want()
        for _ in range(3 * TENANTS):
            world.step(60.0)
            world.settle()
        for entry in of_tenants(servers, "other"):
            folder = world.store.path(entry.key)
            (folder / f"{entry.model_name}.bin").unlink()
            folder.rmdir()
        world.step(60.0)
        world.settle()

    serve(TENANTS)
    assert set(left(world).items()) == {(name, 0) for name in left(world)}


def test_a_tenant_that_makes_one_cache_after_the_other_of_a_model_that_stays(world: World) -> None:
    missing = f"{world.url}/missing.bin"
    administrators = local_model("a", missing)
    world.want(administrators)
    world.settle()
    before = left(world)
    for number in range(TENANTS):
        cache = local_model(f"of-team-{number}", missing, namespace="team")
        world.want(administrators, cache)
        world.settle()
    world.want(administrators)
    world.settle()
    assert left(world) == before


def test_a_tenant_that_declares_one_size_after_the_other() -> None:
    reservations = Reservations()
    for size in range(TENANTS):
        request = Request("a", "http://x/a", (), size=size)
        reservations.retain({"a": request})
        reservations.grow(request, 100, Coming.MODEL)
        assert reservations.learned == {"a": {(size, Coming.MODEL): 100}}
    reservations.retain({"a": request})
    assert len(reservations._learned) == 1


def test_the_state_of_a_refused_folder_is_small() -> None:
    refusals = adopting.Refusals()
    refusals.note("a", b"1", DownloadError(kind=None, message=""))  # type: ignore[arg-type]
    refusals.note("b", b"2", DownloadError(kind=None, message=""))  # type: ignore[arg-type]
    refusals.retain({"b"})
    assert refusals.of("a", b"1") is None
    assert refusals.of("b", b"1") is None
    assert refusals.of("b", b"2") is not None
