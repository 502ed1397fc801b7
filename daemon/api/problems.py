"""Errors as HTTP: one table from the error tree to statuses, and problem+json (RFC 9457) in both directions."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from jobs import errors

if TYPE_CHECKING:  # the command line reads problems too, and has no use for a server
    from starlette.types import Send

#: The media type of an error's body.
PROBLEM: Final = "application/problem+json"
#: What ``type`` begins with; the error's slug follows.
URN: Final = "urn:mlxd:"

#: Which status each error answers with.
ERROR_STATUS: Final[Mapping[type[errors.MlxdError], int]] = MappingProxyType(
    {
        errors.MlxdError: 500,
        errors.InvalidRequest: 400,
        errors.InvalidParams: 422,
        errors.InvalidInput: 422,
        errors.JobNotFound: 404,
        errors.JobConflict: 409,
        errors.StaleFence: 409,
        errors.ScheduleNotFound: 404,
        errors.ScheduleConflict: 409,
        errors.QueueFull: 429,
        errors.LedgerUnavailable: 503,
        errors.OutputError: 507,
        errors.StorageUnavailable: 507,
        errors.Unavailable: 503,
        errors.UnknownTask: 422,
        errors.UnknownRuntime: 422,
        errors.ModelMissing: 404,
        errors.ModelUnloadable: 503,
        errors.ModelError: 422,
        errors.ModelBroken: 422,
        errors.ModelTooLarge: 422,
        errors.RequestFailed: 502,
        errors.OutOfMemory: 507,
        errors.RunnerDied: 502,
        errors.Interrupted: 503,
        errors.JobCancelled: 409,
        errors.InputChanged: 409,
        errors.ConfigError: 422,
        errors.DaemonUnreachable: 503,
        errors.AlreadyRunning: 409,
        errors.ServiceError: 500,
    }
)

#: Seconds after which trying again makes sense, where the error does not say (``facts["retry_after_s"]``).
RETRY_AFTER: Final[Mapping[int, int]] = MappingProxyType({429: 5, 503: 5})

_MEMBERS: Final = frozenset({"type", "title", "status", "detail"})


def status_of(error: errors.MlxdError) -> int:
    """Return the status for *error*; a class that is not in the table answers as its nearest ancestor."""
    return next(ERROR_STATUS[kind] for kind in type(error).__mro__ if kind in ERROR_STATUS)


def problem_of(error: errors.MlxdError) -> dict[str, Any]:
    """Return *error* as a problem document; its facts are extension members."""
    title = (type(error).__doc__ or "").strip().splitlines()[0]
    return problem(status_of(error), slug=error.slug, title=title, detail=error.message, facts=error.facts)


def problem(
    status: int, *, slug: str, detail: str, title: str | None = None, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a problem document for an error that has no class of its own (a wrong path, a wrong method)."""
    return {
        "type": URN + slug,
        "title": title or http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **{key: value for key, value in (facts or {}).items() if key not in _MEMBERS},
    }


def unforeseen() -> dict[str, Any]:
    """Return what is said where nobody foresaw what happened: nothing of our insides."""
    return problem(500, slug=errors.MlxdError.slug, detail="mlxd failed at this request; its log says why.")


def headers_for(status: int, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that go with *status*: Retry-After where waiting helps."""
    wait = facts.get("retry_after_s", RETRY_AFTER.get(status))
    return {} if wait is None else {"Retry-After": str(max(1, round(wait)))}


async def send_problem(send: Send, document: Mapping[str, Any], *headers: tuple[bytes, bytes]) -> None:
    """Answer an ASGI request with a problem *document*, and these *headers* besides its own."""
    body = encode(document)
    own = [(b"content-type", PROBLEM.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": document["status"], "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})


def encode(document: Mapping[str, Any]) -> bytes:
    """Return *document* as JSON; a fact that JSON cannot say is said as text."""
    return json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "replace")


def error_from(document: Mapping[str, Any], *, status: int) -> errors.MlxdError:
    """Return the error that a problem document tells of: the class with its slug, else one that fits *status*."""
    slug = str(document.get("type", "")).removeprefix(URN)
    kind = _by_slug().get(slug)
    if kind is None:
        kind = errors.InvalidRequest if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else errors.MlxdError
    detail = str(document.get("detail") or document.get("title") or f"The daemon answered {status}.")
    facts = {key: value for key, value in document.items() if key not in _MEMBERS and key != "message"}
    return kind(detail, **facts)


def _by_slug() -> dict[str, type[errors.MlxdError]]:
    return {kind.slug: kind for kind in ERROR_STATUS}
