"""The agent's metrics: a real disk and origin, and what Prometheus reads."""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agent.cluster.pod_mounts import PodMounts
from agent.commands.metrics import PREFIX, Metrics
from agent.disk.store import Store
from agent.sources import BLOBS, SCHEMES, all_sources
from agent.structs.failures import FailureKind
from agent.structs.sizes import EvictionReason
from crds.states import ModelState
from crds.version import __version__
from tests.unit.agent.crowded import TAKES, fill, limit, models, pod, prepare, use, wait
from tests.unit.agent.scrape import measured, scrape
from tests.unit.agent.world import DATA, GRACE

if TYPE_CHECKING:
    from tests.unit.agent.world import World

SIZE = len(DATA) + 1


@pytest.fixture
def metrics(world: World) -> Metrics:
    """Metrics of a node that has room for 2.5 models, and no pods."""
    prepare(world)
    metrics = measured(world)
    world.loop.observe_pods(())
    return metrics


def test_a_download_is_counted_with_its_bytes_and_its_time(world: World, metrics: Metrics) -> None:
    world.web.gate = threading.Event()
    world.want(*models(world, "a"))
    world.settle_until(lambda: bool(world.active()))
    world.step(20)
    found = scrape(metrics)
    assert found.value("downloads_active") == 1
    assert found.series("models") == {("downloading",): 1}
    world.web.gate.set()
    world.settle()
    found = scrape(metrics)
    assert found.series("downloads_total") == {("published", "http"): 1}
    assert found.series("download_bytes_total") == {("http",): SIZE}
    assert found.value("download_seconds_sum") == 20
    assert found.value("download_seconds_bucket", "15.0") == 0
    assert found.value("download_seconds_bucket", "60.0") == 1
    assert found.value("download_size_bytes_sum") == SIZE
    assert found.value("downloads_active") == 0
    assert found.series("models") == {("downloaded",): 1}
    assert found.value("models_bytes") == TAKES


def test_failed_attempts_are_counted_by_reason_and_their_time_counts(
    world: World, metrics: Metrics
) -> None:
    world.web.gate = threading.Event()
    data = world.web.files.pop("/a.bin")
    world.want(*models(world, "a"))
    world.settle_until(lambda: bool(world.active()))
    world.step(4)
    world.web.gate.set()
    world.settle()
    found = scrape(metrics)
    assert found.series("downloads_total") == {("failed", "http"): 1}
    assert found.series("download_failures_total") == {("NotFound",): 1}
    assert found.value("download_seconds_count") == 0
    # The wait of five seconds between the attempts does not count.
    world.web.files["/a.bin"] = data
    world.web.gate = threading.Event()
    world.step(5)
    world.settle_until(lambda: bool(world.active()))
    world.step(3)
    world.web.gate.set()
    world.settle()
    found = scrape(metrics)
    assert found.value("downloads_total", "published", "http") == 1
    assert found.value("download_seconds_sum") == 7


def test_a_download_that_nobody_wants_any_more_is_counted_as_cancelled(
    world: World, metrics: Metrics
) -> None:
    world.web.gate = threading.Event()
    world.want(*models(world, "a"))
    world.settle_until(lambda: bool(world.active()))
    world.want()
    world.step()
    world.step(GRACE)
    world.web.gate.set()
    world.settle()
    assert scrape(metrics).series("downloads_total") == {("cancelled", "http"): 1}


def test_an_eviction_is_counted_by_reason(world: World, metrics: Metrics) -> None:
    fill(world, "ab")
    world.want(*models(world, "abc"))
    world.settle()
    found = scrape(metrics)
    assert found.series("evictions_total") == {("MadeRoom",): 1}
    assert found.series("evicted_bytes_total") == {("MadeRoom",): TAKES}
    assert found.series("models") == {("downloaded",): 2, ("evicted",): 1}
    # All reasons have a series from the start: `increase` does not see a first value.
    assert found.value("evictions_total", "DiskPressure") == 0
    assert found.value("removals_total") == 0


def test_a_removal_is_counted(world: World, metrics: Metrics) -> None:
    fill(world, "a")
    world.want()
    world.step()
    assert scrape(metrics).series("models") == {("removing",): 1}
    world.step(GRACE)
    world.settle()
    found = scrape(metrics)
    assert (found.value("removals_total"), found.series("models")) == (1, {})
    assert found.value("models_bytes") == 0


def test_what_waits_is_a_state(world: World, metrics: Metrics) -> None:
    fill(world, "ab")
    use(world, "a", "b")
    world.want(*models(world, "abc"))
    world.settle()
    assert scrape(metrics).value("downloads_waiting") == 1


def test_a_pod_that_finds_its_model_saves_its_bytes(world: World, metrics: Metrics) -> None:
    limit(world, 9)
    fill(world, "a")
    world.web.gate = threading.Event()
    world.want(*models(world, "ab"))
    wait(world, "b")
    world.settle_until(lambda: world.key("b") in world.active())
    found = scrape(metrics)
    assert found.series("pod_starts_total") == {("cold",): 1}
    assert (found.value("saved_bytes_total"), found.value("waiting_pods")) == (0, 1)
    world.web.gate.set()
    world.settle()
    # The same pod is no further start, also now that its model is there.
    assert scrape(metrics).series("pod_starts_total") == {("cold",): 1}
    assert scrape(metrics).value("waiting_pods") == 0
    use(world, "a")
    world.step()
    use(world, "a", "b")
    world.step()
    found = scrape(metrics)
    assert found.series("pod_starts_total") == {("cold",): 1, ("warm",): 2}
    assert found.value("saved_bytes_total") == 2 * SIZE
    # A gap, in which nobody knows the pods, makes no start.
    world.loop.observe_pods(None)
    world.step()
    assert scrape(metrics).value("synced") == 0
    use(world, "a", "b")
    world.step()
    assert scrape(metrics).series("pod_starts_total") == {("cold",): 1, ("warm",): 2}
    assert scrape(metrics).value("synced") == 1


def test_pods_that_ran_before_the_agent_did_not_start_now(world: World, metrics: Metrics) -> None:
    fill(world, "a")
    metrics = measured(world)
    use(world, "a")
    world.want(*models(world, "a"))
    world.settle()
    assert scrape(metrics).series("pod_starts_total") == {}
    world.loop.observe_pods((pod(world, "a"), _another(world)))
    world.step()
    assert scrape(metrics).series("pod_starts_total") == {("warm",): 1}


def _another(world: World) -> PodMounts:
    return PodMounts("team", "other", frozenset(), frozenset({world.key("a")}), uid="other")


def test_a_damaged_file_is_counted_once_and_its_repair_is_no_download_of_a_model(
    world: World, metrics: Metrics
) -> None:
    fill(world, "a")
    (world.root / "models" / world.key("a") / "a.bin").write_bytes(b"short")
    world.step(60)
    world.settle()
    found = scrape(metrics)
    assert found.value("corrupt_files_total") == 1
    assert found.value("downloads_total", "published", "http") == 2
    assert found.value("download_seconds_count") == 1
    assert world.states() == {"a": "Downloaded"}


def test_a_scrub_counts_its_bytes_and_its_findings(world: World) -> None:
    world.scrub_rate = 1 << 30
    prepare(world)
    metrics = measured(world)
    world.loop.observe_pods(())
    fill(world, "a")
    file = world.root / "models" / world.key("a") / "a.bin"
    before = file.stat()
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    world.step(86400)
    world.settle_until(lambda: scrape(metrics).value("corrupt_files_total") == 1)
    assert scrape(metrics).value("scrubbed_bytes_total") == SIZE
    world.settle()


def test_an_adoption_is_counted_and_is_no_download(world: World, metrics: Metrics) -> None:
    folder = world.root / "models" / world.key("a")
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"a" + DATA)
    world.want(*models(world, "a"))
    world.settle()
    found = scrape(metrics)
    assert (found.value("adoptions_total"), found.series("downloads_total")) == (1, {})
    assert found.value("download_seconds_count") == 0


def test_the_disk_and_the_conditions_are_states(
    world: World, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, "a")
    found = scrape(metrics)
    assert found.series("condition") == {("True", "Ready"): 1}
    assert found.value("disk_writable") == 1
    disk = os.statvfs(world.root)
    assert found.value("disk_capacity_bytes") == disk.f_blocks * disk.f_frsize
    assert 0 < found.value("disk_available_bytes") < found.value("disk_capacity_bytes")
    assert 0 < found.value("disk_used_bytes") < found.value("disk_capacity_bytes")

    def fails(_: Store) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Store, "probe", fails)
    world.step(60)
    found = scrape(metrics)
    assert found.value("disk_writable") == 0
    assert found.series("condition") == {("True", "Ready"): 1, ("False", "DiskReady"): 1}


def test_the_time_of_the_last_report_stands_still_while_none_succeeds(
    world: World, metrics: Metrics
) -> None:
    fill(world, "a")
    last = scrape(metrics).value("last_report_timestamp_seconds")
    assert last == world.now().timestamp()
    world.step(30)
    # Nothing was to be written.
    assert scrape(metrics).value("last_report_timestamp_seconds") == last + 30
    world.api.down = True
    world.want(*models(world, "ab"))
    for _ in range(3):
        world.step(30)
    found = scrape(metrics)
    assert found.value("last_report_timestamp_seconds") == last + 30
    assert found.value("last_step_timestamp_seconds") == last + 120
    world.api.down = False
    world.step(30)
    assert scrape(metrics).value("last_report_timestamp_seconds") == last + 150


def test_what_peers_give_and_get_is_counted(metrics: Metrics) -> None:
    metrics.received("s3", 1)
    metrics.received_from_peers("s3", 10)
    metrics.received_from_peers("unknown", 5)
    metrics.sent_to_peers(20)
    metrics.peer_lied()
    found = scrape(metrics)
    # What came from the origin is counted apart.
    assert found.value("download_bytes_total", "s3") == 1
    assert found.series("peer_received_bytes_total") == {("s3",): 10, ("other",): 5}
    assert found.value("peer_sent_bytes_total") == 20
    assert found.value("peers_left_out_total") == 1


def test_steps_are_timed(world: World, metrics: Metrics) -> None:
    assert scrape(metrics).value("step_seconds_count") == 0
    thread = threading.Thread(target=world.loop.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not scrape(metrics).value("step_seconds_count") and time.monotonic() < deadline:
        time.sleep(0.01)
    world.loop.stop()
    thread.join(30)
    assert scrape(metrics).value("step_seconds_count") >= 1


def test_before_the_first_step_there_are_no_states(world: World) -> None:
    metrics = measured(world)
    found = scrape(metrics)
    assert (found.value("synced"), found.value("disk_writable")) == (0, 1)
    assert found.series("models") == {}
    assert found.value("last_step_timestamp_seconds") <= time.time()
    assert found.value("build_info", __version__) == 1


def test_every_label_is_bounded(world: World, metrics: Metrics) -> None:
    """Whatever a tenant writes into a URI, and whatever happens, adds no series."""
    for scheme in ("s3", "Made-Up", "", "s3cret"):
        metrics.received(scheme, 1)
        metrics.failed(scheme, FailureKind.UNSUPPORTED)
    for kind in FailureKind:
        metrics.failed("s3", kind)
    world.settle()
    text = metrics.exposition().decode()
    assert "s3cret" not in text
    found = scrape(metrics)
    assert found.series("download_bytes_total") == {("s3",): 1, ("other",): 3}
    allowed = {
        "state": {state.lower() for state in ModelState},
        "scheme": {*SCHEMES, "other"},
        "result": {"published", "failed", "cancelled"},
        "reason": {*FailureKind, *EvictionReason},
        "copy": {"warm", "cold"},
    }
    labels: dict[str, set[str]] = {}
    for family in found.families:
        for sample in family.samples:
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    for name, values in labels.items():
        assert values <= allowed.get(name, values), name
    assert labels.keys() - allowed.keys() <= {"version", "le", "type", "status", "code"}


def test_schemes_are_those_that_sources_fetch() -> None:
    assert {*SCHEMES, BLOBS} == set(all_sources()._of_all)


def test_names_and_help_follow_the_conventions(metrics: Metrics) -> None:
    for family in scrape(metrics).families:
        if not family.name.startswith(PREFIX):
            continue
        assert family.documentation.endswith("."), family.name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        assert not any(sample.name.endswith("_created") for sample in family.samples)
