"""The Flask app: the hooks' only I/O. Parse, call, serialise."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from hooks import caches, nodegroups, nodes
from hooks.envelope import (
    BadRequest,
    CompositeRequest,
    CustomizeRequest,
    DecoratorRequest,
    parse_request,
)
from hooks.pace import Unhurried
from hooks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Struct

    Hook = Callable[[bytes], Struct | Unhurried]


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
) -> Flask:
    """The app. Raises ValueError when the environment's settings cannot work.

    A hook answers 200 with the whole desired state, 4xx with what is wrong with the request, or
    500; Metacontroller calls again after anything but 200, and changes nothing until then.
    """
    app = Flask("localmodel-hooks")
    settings = settings or Settings.from_environment(os.environ)
    for path, hook in _routes(settings, clock).items():
        app.add_url_rule(path, path, _view(hook, sleep), methods=["POST"])
    for path in ("/healthz", "/readyz"):
        app.add_url_rule(path, path, lambda: Response("ok\n", mimetype="text/plain"))
    app.register_error_handler(BadRequest, _refuse)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _fail)
    return app


def _view(hook: Hook, sleep: Callable[[float], None]) -> Callable[[], Response]:
    def view() -> Response:
        answer = hook(request.get_data(cache=False))
        if isinstance(answer, Unhurried):
            sleep(answer.seconds)
            answer = answer.response
        return Response(msgspec.json.encode(answer), mimetype="application/json")

    return view


def _error(status: int, message: str) -> Response:
    return Response(f"{request.path}: {message}\n", status=status, mimetype="text/plain")


def _refuse(error: BadRequest) -> Response:
    return _error(422, str(error))


def _http_error(error: HTTPException) -> Response:
    return _error(error.code or 500, error.description or error.name)


def _fail(error: Exception) -> Response:
    current_app.logger.error("Hook failed", exc_info=error)
    return _error(500, f"{type(error).__name__}: {error}")
