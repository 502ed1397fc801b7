"""The HTTP application: routes, guards, and errors as problem+json. No business rule lives here.

Importing this module imports FastAPI (a quarter of a second, ten megabytes): only the daemon does it, and late
(`daemon.api.late`).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daemon.api import routes_admin, routes_folders, routes_jobs, routes_schedules
from daemon.api.front import MAX_BODY
from daemon.api.problems import PROBLEM, encode, headers_for, problem, problem_of, status_of, unforeseen
from daemon.views import ServiceFacade
from jobs.errors import InvalidRequest, MlxdError

_log = logging.getLogger(__name__)

#: Requests that work on the ledger at the same time; the others wait their turn.
_THREADS: Final = 16
# FastAPI can export traces of requests when the environment says so. Prompts are nobody else's business.
_NO_TELEMETRY: Final[Any] = {  # Any: older versions have no type for it, and ignore it
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
_SLUGS: Final = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "not-json"}


class ProblemView(BaseModel):
    """An error, as RFC 9457 has it; further members are the error's facts."""

    #: ``urn:mlxd:`` and the error's stable name.
    type: str
    title: str
    status: int
    #: A sentence that says what happened and what to do.
    detail: str


def create_app(service: ServiceFacade, *, max_body: int = MAX_BODY) -> FastAPI:
    """Return the application that asks *service*."""
    app = FastAPI(
        title="mlxd",
        summary="Jobs on resident MLX models.",
        version=importlib.metadata.version("mlxd"),
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=_lifespan,
        responses=_declared(),
        telemetry=_NO_TELEMETRY,
    )
    app.state.service = service
    app.include_router(routes_jobs.router)
    app.include_router(routes_folders.router)
    app.include_router(routes_admin.router)
    app.include_router(routes_schedules.router)
    app.include_router(routes_admin.metrics_router)
    app.add_exception_handler(MlxdError, _on_mlxd_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_middleware(Guard, max_body=max_body)
    return app


class Guard:
    """Caps what a request may send, and turns what nobody foresaw into a plain 500 that says nothing of our insides."""

    def __init__(self, app: ASGIApp, *, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, self._capped(scope, receive), watched)
        # The last line of defence: a fault in one request must not be more than that.
        except Exception:
            _log.exception("A request failed unexpectedly.", extra={"action": "request_failed", "path": scope["path"]})
            if started:
                raise
            await _answer(unforeseen())(scope, receive, send)

    def _capped(self, scope: Scope, receive: Receive) -> Receive:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        total = 0

        def check(size: int) -> None:
            if size > self._max_body:
                raise HTTPException(413, f"A request may have at most {self._max_body} bytes.", {"Connection": "close"})

        async def capped() -> Message:
            nonlocal total
            check(int(declared))
            message = await receive()
            total += len(message.get("body", b""))
            check(total)
            return message

        return capped


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    # Loading a model takes minutes: such requests have threads of their own, so that they do not hold up the others.
    app.state.slow = anyio.CapacityLimiter(_THREADS // 2)
    yield


def _declared() -> dict[int | str, dict[str, Any]]:
    """Say in the schema that any answer that is no success is a problem."""
    schema = {"model": ProblemView, "content": {PROBLEM: {}}}
    return {
        "4XX": {**schema, "description": "The request cannot be done; `type` and `detail` say why."},
        "5XX": {**schema, "description": "mlxd cannot do it now; `type` and `detail` say why."},
    }


def _answer(document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    status = int(document["status"])
    return Response(
        encode(document), status, media_type=PROBLEM, headers={**headers_for(status, document), **(headers or {})}
    )


def _on_mlxd_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, MlxdError)  # noqa: S101 - registered for exactly this class
    if status_of(error) >= 500:  # noqa: PLR2004 - HTTP
        _log.error("%s", error.message, extra={"action": "request_refused", "error": error.slug})
    return _answer(problem_of(error))


def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - same
    found = [{"where": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()]
    sent = request.headers.get("content-type", "")
    if "json" not in sent and any(one["loc"][:1] == ("body",) for one in error.errors()):
        detail = f"Send the body as JSON with `Content-Type: application/json` (it was {sent or 'not given'!r})."
        return _answer(problem(415, slug="not-json", detail=detail))
    if any(one["type"] == "json_invalid" for one in error.errors()):
        return _answer(
            problem(400, slug=InvalidRequest.slug, detail="The body is not valid JSON.", facts={"errors": found})
        )
    told = "; ".join(f"{one['where']}: {one['message']}" for one in found)
    return _answer(
        problem(422, slug=InvalidRequest.slug, detail=f"The request is not right. {told}.", facts={"errors": found})
    )


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - same
    details = {
        404: f"There is nothing at {request.url.path}; /openapi.json lists what there is.",
        405: f"{request.url.path} does not know the method {request.method}.",
    }
    detail = details.get(error.status_code, error.detail)
    slug = _SLUGS.get(error.status_code, InvalidRequest.slug)
    headers = {"Allow": _methods(request)} if error.status_code == 405 else error.headers  # noqa: PLR2004 - HTTP
    return _answer(problem(error.status_code, slug=slug, detail=detail), headers)


def _methods(request: Request) -> str:
    """Return every method that the path knows; the framework names those of the first route only."""
    routers = (routes_jobs, routes_folders, routes_admin, routes_schedules)
    routes = [route for module in routers for route in module.router.routes] + routes_admin.metrics_router.routes
    fitting = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for route in fitting for method in getattr(route, "methods", None) or ()}))
