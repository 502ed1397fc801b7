"""What a server of the HTTP interface answers with: short ways at once, the application as soon as it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from daemon.api.answering import ShortWay
from daemon.api.gathering import Gathering
from daemon.api.late import LateApp
from daemon.api.quick import SMALL, QuickHealth, QuickSubmit, ShortWays
from daemon.views import ServiceFacade

#: Bytes in a request's body: room for a prompt of 10 MB and the escapes that JSON puts into it.
MAX_BODY: Final = 16 * 1024 * 1024


class Front(NamedTuple):
    """What `daemon.api.server.SocketServer` takes."""

    app: LateApp
    short: ShortWay


def front(
    service: ServiceFacade,
    *,
    max_body: int = MAX_BODY,
    made: Callable[[], object] = lambda: None,
    failed: Callable[[BaseException], object] = lambda _error: None,
) -> Front:
    """Return what answers for *service*. Each server needs one of its own.

    *made* is called when all of it is there, *failed* with the reason if it never will be.
    """

    def make() -> Any:
        from daemon.api.app import create_app

        app = create_app(service, max_body=max_body)
        made()
        return app

    gathering = Gathering(service.submit_all)
    short = ShortWays(QuickSubmit(gathering, most=min(SMALL, max_body)), QuickHealth(service.health))
    return Front(LateApp(make, closed=gathering.close, failed=failed), short)
