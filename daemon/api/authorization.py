"""Who may speak on the TCP port: a program of this machine that was given the token, and no page in a browser.

1. ``Host`` is exactly one of ours, with the port: a name that an attacker's DNS points here is not (DNS rebinding).
2. No ``Origin``: programs send none, and pages in browsers cannot leave it out of what could do harm.
3. The bearer token, compared in constant time. It is in no cookie, so no browser adds it by itself (CSRF).
4. A body is JSON and says so: what a form can send is refused.

Each refusal ends the connection, so that nothing can be smuggled behind it. There is no CORS answer to anything.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from daemon.api.answering import ShortWay, Take
from daemon.api.problems import problem, send_problem

_SCHEME: Final = b"bearer "
_JSON: Final = b"application/json"

Headers = Sequence[tuple[bytes, bytes]]


class Refusal(NamedTuple):
    """Why a request is not let through."""

    status: int
    slug: str
    detail: str


class Authorized:
    """Lets requests through to *app* that are for one of *hosts* and carry *token*."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], token: bytes) -> None:
        self._app = app
        self._hosts = frozenset(host.encode("ascii") for host in hosts)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refused = self._refusal(scope["headers"])
            await (self._app(scope, receive, send) if refused is None else _answer(refused, send))

    def before(self, short: ShortWay) -> ShortWay:
        """Return *short* as a way that leads through this gate too."""
        return _Before(lambda headers: self._refusal(headers) is None, short)

    def _refusal(self, headers: Headers) -> Refusal | None:
        return refusal(headers, self._hosts, self._token)


class _Before:
    """Lets through to *short* what *admits* says; what it does not goes on to the application, and is refused there."""

    def __init__(self, admits: Callable[[Headers], bool], short: ShortWay) -> None:
        self._admits = admits
        self._short = short

    def way(self, scope: Mapping[str, Any]) -> Take | None:
        found = self._short.way(scope)
        return found if found is not None and self._admits(scope["headers"]) else None


def refusal(headers: Headers, hosts: Collection[bytes], token: bytes) -> Refusal | None:
    """Return why a request with *headers* (names in lower case) is refused, None if it is not."""
    if _all(headers, b"host") not in [[host] for host in hosts]:
        return Refusal(403, "forbidden", "This address is not served; use the one in the configuration, with its port.")
    if _all(headers, b"origin"):
        return Refusal(403, "forbidden", "Web pages are not served: the request has the header Origin.")
    if not _carries(_all(headers, b"authorization"), token):
        return Refusal(
            401, "unauthorized", "Send `Authorization: Bearer TOKEN`; `mlxd config path --json` names its file."
        )
    if _has_body(headers) and not all(_is_json(sent) for sent in _all(headers, b"content-type") or [b""]):
        return Refusal(415, "not-json", "Send the body as JSON with `Content-Type: application/json`.")
    return None


def _all(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def _carries(sent: Sequence[bytes], token: bytes) -> bool:
    if len(sent) != 1 or sent[0][: len(_SCHEME)].lower() != _SCHEME:
        return False
    return hmac.compare_digest(sent[0][len(_SCHEME) :], token)


def _has_body(headers: Headers) -> bool:
    lengths = _all(headers, b"content-length")
    return bool(_all(headers, b"transfer-encoding")) or any(length.strip(b" 0") for length in lengths)


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == _JSON


async def _answer(refused: Refusal, send: Send) -> None:
    headers = [(b"connection", b"close")]
    if refused.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send_problem(send, problem(refused.status, slug=refused.slug, detail=refused.detail), *headers)
