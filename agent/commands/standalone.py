"""`localmodel-agent run --models`: makes the disk match a models file, without Kubernetes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.commands import logs
from agent.commands.assemble import (
    loop_options,
    make_fetching,
    own_credentials,
    run_loop,
)
from agent.commands.exit_codes import OK, USAGE, exit_code
from agent.commands.file_node import FileNode
from agent.commands.flags import ANYWHERE
from agent.commands.limits_file import LimitsError
from agent.commands.listening import BindError
from agent.commands.models_file import ModelsError
from agent.commands.observation import observe
from agent.commands.peer_flags import named_peers
from agent.commands.process import Stop, fail, leave
from agent.commands.progress import LogLines, Shown, make_display
from agent.commands.verify import Comparer, listed_in_manifest
from agent.control.loop import Loop
from agent.disk.root import StoreError
from agent.disk.store import Store
from agent.jobs import allocator
from agent.structs.counts import NO_COUNTS
from agent.structs.failures import TRANSIENT_KINDS, CancelledError, FailureKind
from agent.structs.log import log
from crds.node import LocalModelNodeStatus, NodeModelStatus
from crds.quantity import format_quantity
from crds.states import ModelState

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from agent.commands.progress import Display
    from crds.node import LocalModel

# How often the display of running downloads is updated.
SHOW_SECONDS = 1.0

# Log events that the display reports itself.
_SHOWN_BY_DISPLAY = frozenset({"Download failed", "Event", "Removal waits for the API server"})


def run_models(options: argparse.Namespace) -> int:
    """Run the loop until a signal, or with --once until it is done, and end the process.

    Returns USAGE if the loop cannot start.
    """
    allocator.tune()
    stop = Stop()
    display = make_display(quiet=options.log_format != "auto")
    if options.log_format == "auto":
        log.send_to(LogLines(display, _SHOWN_BY_DISPLAY))
    else:
        logs.configure(options.log_format)
    watcher = Watcher(display, stop, once=options.once, retries=options.retries)
    try:
        loop = _make_loop(options, watcher, display, stop)
    except (BindError, LimitsError, ModelsError, StoreError) as error:
        display.close()
        fail(str(error))
        return USAGE
    except CancelledError:
        display.close()
        return leave(stop.code if options.once else OK)
    run_loop(loop, stop)
    display.close()
    for failure in watcher.failures if options.once else ():
        fail(failure)
    # Without --once, a signal is the usual end.
    return leave(stop.code if options.once else OK)


def _make_loop(options: argparse.Namespace, watcher: Watcher, display: Display, stop: Stop) -> Loop:
    def log_problem(problem: str) -> None:
        # With a display, LogLines prints it there.
        log.error("Models are wrong", reason=problem)

    store = Store(options.root, options.disk_size, makes_views=options.volumes == "model")
    observation = observe(options, store)
    counts = observation.counts if observation else NO_COUNTS
    node = FileNode(options.models, on_status=watcher.observe, on_problem=log_problem)
    node.load()
    peers = named_peers(options, store, counts)
    fetching = make_fetching(
        options,
        file_directories=[ANYWHERE],
        own=own_credentials(),
        peers=peers.group if peers else None,
    )
    store.open()
    store.recover()
    if peers is not None:
        peers.start()
    if options.verify:
        _verify(store, display, stop)
    loop = Loop(
        node,
        store,
        fetching,
        replace(
            loop_options(options, counts),
            progress=min(SHOW_SECONDS, options.progress_seconds),
            remembers_failures=False,
        ),
    )
    if observation is not None:
        observation.follow(loop)
    return loop


def _verify(store: Store, display: Display, stop: Stop) -> None:
    """Remove each copy that differs from its manifest; the loop downloads the requested ones.

    Raises StoreError if the disk cannot be read, or a copy cannot be removed.
    """
    try:
        copies, _ = store.scan()
    except OSError as error:
        raise _unusable(store, "read", error) from error
    for key, on_disk in copies.items():
        manifest = on_disk.manifest
        if not on_disk.is_published or manifest is None:
            continue
        name = manifest.caches[0].name if manifest.caches else key
        comparer = Comparer(lambda: stop.is_set)
        done = threading.Event()
        shower = threading.Thread(
            target=_show, args=(display, name, comparer, manifest.size, done), daemon=True
        )
        shower.start()
        try:
            # Wrong modes are repaired, and are no damage; the comparison reports the others.
            for _ in store.open_up(manifest):
                pass
            expected = listed_in_manifest(manifest)
            # Other files of an adopted folder are its owner's.
            found = comparer.compare(store.path(key), expected, is_ours=True, has_others=True)
        except OSError as error:
            display.say(f"{name}: {error.filename} cannot be read: {error.strerror}")
            continue
        finally:
            done.set()
            shower.join()
            display.drop(name)
        for file in found.problems:
            display.say(f"{name}: {file.path} {file.problem}")
        if found.problems:
            display.say(f"{name} is damaged, and is downloaded again if the file still lists it")
            try:
                store.remove(key)
            except OSError as error:
                raise _unusable(store, "changed", error) from error
        else:
            display.say(f"{name} is whole: {format_quantity(found.size)}")


def _unusable(store: Store, verb: str, error: OSError) -> StoreError:
    place = error.filename or store.root
    return StoreError(f"{place} cannot be {verb}: {error.strerror}; check the disk")


def _show(
    display: Display, name: str, comparer: Comparer, size: int, done: threading.Event
) -> None:
    while not done.wait(SHOW_SECONDS):
        display.show(name, Shown("verifying", comparer.done, size))


@dataclass(frozen=True)
class _LastStatus:
    """The last observed status of a model."""

    state: ModelState
    attempts: int
    hash: str | None


class Watcher:
    """Shows the statuses of the loop; with `once`, ends it when all models are final.

    A model is final when it is published with its hash, or when it has failed for good.
    """

    def __init__(self, display: Display, stop: Stop, *, once: bool, retries: int) -> None:
        self._display = display
        self._stop = stop
        self._once = once
        self._retries = retries
        # By key and name. Bounded by the models of the last status.
        self._last: dict[tuple[str, str], _LastStatus] = {}
        self._failed: dict[str, NodeModelStatus] = {}

    @property
    def failures(self) -> list[str]:
        """A line with name, reason and message for each model that has failed."""
        return [f"{model.name}: {model.reason}: {model.message}" for model in self._failed.values()]

    def observe(self, status: dict[str, Any], wanted: tuple[LocalModel, ...]) -> None:
        """Show a status of the loop, which is for this list of models."""
        models = LocalModelNodeStatus.model_validate(status).models
        names = {(model.key, model.name) for model in models}
        for key, name in self._last.keys() - names:
            del self._last[key, name]
            self._display.drop(name)
            self._display.say(f"{name} is removed")
        for model in models:
            self._show(model)
        if self._once:
            self._finish_if_final(models, {model.key for model in wanted})

    def _show(self, model: NodeModelStatus) -> None:
        identity = (model.key, model.name)
        before = self._last.get(identity)
        now = _LastStatus(model.state, model.attempts or 0, model.hash)
        self._last[identity] = now
        if model.state is ModelState.DOWNLOADING:
            self._display.show(model.name, _shown(model))
        elif model.state is not ModelState.PENDING:
            self._display.drop(model.name)
        if now != before:
            line = _change_line(model, before)
            if line:
                self._display.say(line)

    def _finish_if_final(self, models: Iterable[NodeModelStatus], wanted: set[str]) -> None:
        complete: set[str] = set()
        for model in models:
            if model.key not in wanted or model.state is ModelState.REMOVING:
                continue
            if model.state is ModelState.DOWNLOADED:
                self._failed.pop(model.key, None)
                # The hash may be computed after publication, and a --once waits for it.
                if model.hash is not None:
                    complete.add(model.key)
            elif model.state is ModelState.FAILED and self._is_final(model):
                self._failed[model.key] = model
        self._failed = {key: model for key, model in self._failed.items() if key in wanted}
        if wanted <= complete | self._failed.keys():
            failed = next(iter(self._failed.values()), None)
            self._stop.finish(OK if failed is None else exit_code(FailureKind(failed.reason or "")))

    def _is_final(self, model: NodeModelStatus) -> bool:
        if model.reason not in list(FailureKind):
            # No failure, but a reason such as that the hash is being computed.
            return False
        return model.reason not in TRANSIENT_KINDS or (model.attempts or 1) > self._retries


def _shown(model: NodeModelStatus) -> Shown:
    return Shown(
        "downloading" if model.size != model.downloaded_bytes else "finishing",
        model.downloaded_bytes or 0,
        model.size,
        model.bytes_per_second,
    )


def _change_line(model: NodeModelStatus, before: _LastStatus | None) -> str:
    """The message about a change of a model's status, or empty."""
    if model.state is ModelState.DOWNLOADED:
        size = format_quantity(model.size or 0)
        if before is not None and before.state is ModelState.DOWNLOADED:
            return f"{model.name} has the hash {model.hash}"
        return f"{model.name} is there: {size}" + (f", {model.hash}" if model.hash else "")
    if model.state is ModelState.FAILED:
        return f"{model.name} failed: {model.reason}: {model.message}"
    if model.state is ModelState.DOWNLOADING and (
        before is None or before.state is not ModelState.DOWNLOADING
    ):
        return f"{model.name} is being downloaded"
    if model.state is ModelState.REMOVING:
        return f"{model.name} is no longer requested, and is removed after the grace period"
    return ""
