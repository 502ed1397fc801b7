"""Sends a webhook: JSON by POST, signed as https://www.standardwebhooks.com says, so that its libraries can verify it.

No redirect is followed, no proxy is asked, no cookie is kept; of the answer only the status counts. Neither the address
(which may hold a token) nor the secret is ever part of a message.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from jobs.errors import InvalidRequest, RequestFailed
from plugins.task import TaskContext

#: Marks a secret that is given in base 64.
PREFIX: Final = "whsec_"
_FOUND_ELSEWHERE: Final = range(300, 400)
_SUCCESS: Final = range(200, 300)


def sign(secret: bytes, delivery: str, timestamp: int, body: bytes) -> str:
    """Return the header ``webhook-signature``: version 1, HMAC-SHA256 over id, Unix time and body, base 64."""
    digest = hmac.digest(secret, f"{delivery}.{timestamp}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


def secret_of(target: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> bytes | None:
    """Return the secret that the entry *target* names, None if it names none.

    Raises:
        InvalidRequest: it names one that is not there, empty, or not base 64 although it says so.

    """
    if target.get("secret_file"):
        where = str(target["secret_file"])
        try:
            text = Path(where).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"The webhook's secret cannot be read from {where}: {error}.") from None
    elif target.get("secret_env"):
        where = f"the environment variable {target['secret_env']}"
        text = environ.get(target["secret_env"], "").strip()
    else:
        return None
    if not text:
        raise InvalidRequest(f"There is no secret for the webhook in {where}.")
    if not text.startswith(PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise InvalidRequest(f"The webhook's secret in {where} begins with {PREFIX} but is no base 64.") from None


def headers(delivery: str, body: bytes, secret: bytes | None, timestamp: int) -> dict[str, str]:
    """Return the request's headers. The id stays the same for each try, so a receiver can tell a repetition."""
    said = {
        "Content-Type": "application/json",
        "User-Agent": "mlxd",
        "webhook-id": delivery,
        "webhook-timestamp": str(timestamp),
    }
    return said if secret is None else {**said, "webhook-signature": sign(secret, delivery, timestamp, body)}


def webhook(
    target: Mapping[str, Any],
    about: Mapping[str, Any],
    ctx: TaskContext,
    *,
    clock: Callable[[], float] = time.time,
) -> str:
    """Send *about* to the entry *target*'s address, once; return who answered what.

    Raises:
        RequestFailed: nobody answered in time, or with a status that is no success.
        InvalidRequest: the answer is a redirect, or there is no secret where one should be.

    """
    body = json.dumps({"type": "job.ended", "data": about}, ensure_ascii=False).encode()
    sent = headers(ctx.job.id, body, secret_of(target), int(clock()))
    host, status = _post(target["url"], body, sent, timeout=float(target["timeout"]))
    if status in _FOUND_ELSEWHERE:
        raise InvalidRequest(
            f"{host} answered with a redirect ({status}), which is not followed; put the final address into the "
            f"configuration.",
            status=status,
        )
    if status not in _SUCCESS:
        raise RequestFailed(f"{host} answered {status}.", status=status)
    return f"{host} answered {status}."


def _post(url: str, body: bytes, sent: Mapping[str, str], *, timeout: float) -> tuple[str, int]:
    """Return the host and its answer's status; *timeout* is in seconds, for the connection and for the answer each."""
    import http.client
    import ssl
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    host = parts.hostname or ""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = (
        http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=ssl.create_default_context())
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, parts.port, timeout=timeout)
    )
    try:
        connection.request("POST", path, body=body, headers=dict(sent))
        return host, connection.getresponse().status
    except TimeoutError:
        raise RequestFailed(f"{host} did not answer within {timeout:g} s.") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise RequestFailed(f"{host} cannot be reached: {reason}.") from None
    finally:
        connection.close()
