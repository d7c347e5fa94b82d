"""The Flask app, with all I/O of the hooks: parse a request, call a hook, serialise the answer."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from hooks import caches, metrics, nodegroups, nodes
from hooks.access import Access
from hooks.answer_delay import DelayedAnswer
from hooks.envelope import (
    BadRequest,
    CompositeRequest,
    CustomizeRequest,
    DecoratorRequest,
    parse_request,
)
from hooks.reading import parent_name
from hooks.settings import GROUP_HOOK_TIMEOUT_VARIABLE, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Struct

    Hook = Callable[[bytes], Struct | DelayedAnswer]


def _utc_now() -> datetime:
    return datetime.now(tz=UTC)


def _routes(settings: Settings, clock: Callable[[], datetime]) -> dict[str, Hook]:
    def composite(module: object, hook: str) -> Hook:
        function = getattr(module, hook)
        return lambda body: function(parse_request(CompositeRequest, body), settings, clock())

    routes: dict[str, Hook] = {
        "/nodes/customize": lambda body: nodes.customize(parse_request(CustomizeRequest, body)),
        "/nodes/sync": lambda body: nodes.sync(parse_request(DecoratorRequest, body)),
        "/nodegroups/customize": lambda body: nodegroups.customize(
            parse_request(CustomizeRequest, body), settings
        ),
    }
    for hook in ("sync", "finalize"):
        routes[f"/nodegroups/{hook}"] = composite(nodegroups, hook)
    for controller in ("caches", "namespace-caches"):
        routes[f"/{controller}/customize"] = lambda body: caches.customize(
            parse_request(CustomizeRequest, body), settings
        )
        for hook in ("sync", "finalize"):
            routes[f"/{controller}/{hook}"] = composite(caches, hook)
    return routes


def create_app(
    settings: Settings | None = None,
    clock: Callable[[], datetime] = _utc_now,
    sleep: Callable[[float], None] = time.sleep,
    access: Access | None = None,
) -> Flask:
    """Make the app. Raises ValueError for invalid settings in the environment.

    A hook answers 200 with the whole desired state, 401 without the token, another 4xx with an
    error of the request, or 500. After any status but 200, Metacontroller changes nothing and calls
    again.
    """
    app = Flask("localmodel-hooks")
    settings = settings or Settings.from_environment(os.environ)
    access = access or Access.from_environment(os.environ)
    for path, hook in _routes(settings, clock).items():
        view = _view(hook, sleep, settings.timeout(path))
        app.add_url_rule(path, path, _guarded(view, access), methods=["POST"])
    app.add_url_rule("/healthz", "/healthz", lambda: _text(200, "ok"))
    app.add_url_rule("/readyz", "/readyz", lambda: _readiness(access))
    app.add_url_rule("/metrics", "/metrics", _metrics)
    app.register_error_handler(HTTPException, _http_error)
    return app


def _guarded(view: Callable[[], Response], access: Access) -> Callable[[], Response]:
    """The view of a hook for those who may call it."""

    def guarded() -> Response:
        if access.allows(request.headers.get("Authorization")):
            return view()
        metrics.refuse(request.path)
        refusal = _error(
            401, access.problem() or "the header Authorization has not the hooks' token"
        )
        refusal.headers["WWW-Authenticate"] = "Bearer"
        # The body stays unread, so the connection cannot be used again.
        refusal.headers["Connection"] = "close"
        return refusal

    return guarded


def _readiness(access: Access) -> Response:
    """Unlike liveness, it fails while every call is refused, which a restart does not cure."""
    problem = access.problem()
    return _text(503, problem) if problem else _text(200, "ok")


def _view(hook: Hook, sleep: Callable[[float], None], limit: float) -> Callable[[], Response]:
    """The view of a hook; it logs a warning for a call that comes near Metacontroller's timeout."""

    def view() -> Response:
        begun = time.monotonic()
        body = request.get_data(cache=False)
        response, wait = _call(hook, body)
        worked = time.monotonic() - begun
        sleep(wait)
        late = worked + wait > limit / 2
        if late:
            current_app.logger.warning(_late(body, worked + wait, limit))
        metrics.record(
            request.path,
            response.status_code,
            worked,
            request_bytes=len(body),
            response_bytes=response.content_length or 0,
            late=late,
        )
        return response

    return view


def _call(hook: Hook, body: bytes) -> tuple[Response, float]:
    """The answer, and the seconds to wait before sending it."""
    try:
        answer = hook(body)
    except BadRequest as error:
        return _error(422, str(error)), 0.0
    except Exception as error:
        current_app.logger.exception("Hook failed")
        return _error(500, f"{type(error).__name__}: {error}"), 0.0
    if isinstance(answer, DelayedAnswer):
        return _json(answer.response), answer.seconds
    return _json(answer), 0.0


def _json(answer: Struct) -> Response:
    return Response(msgspec.json.encode(answer), mimetype="application/json")


def _late(body: bytes, seconds: float, limit: float) -> str:
    return (
        f"{request.path} took {seconds:.1f} s for {parent_name(body)} with {len(body) >> 20} MiB: "
        f"Metacontroller gives up after {limit:g} s (webhook.timeout in metacontroller/, which "
        f"{GROUP_HOOK_TIMEOUT_VARIABLE} repeats); docs/scale.md says what large clusters set"
    )


def _error(status: int, message: str) -> Response:
    return _text(status, f"{request.path}: {message}")


def _text(status: int, line: str) -> Response:
    return Response(f"{line}\n", status=status, mimetype="text/plain")


def _http_error(error: HTTPException) -> Response:
    return _error(error.code or 500, error.description or error.name)


def _metrics() -> Response:
    return Response(metrics.exposition(), content_type=metrics.CONTENT_TYPE)
