"""What schemathesis cannot know: which tasks there are, and that a request may ask to wait for an hour."""

from __future__ import annotations

from typing import Any

import schemathesis

#: Longest wait that a generated request may ask for, seconds.
MOST = 0.2


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """Let nobody wait for long; values that are no numbers stay as wrong as they are."""
    if isinstance(query, dict):
        for name in ("wait", "timeout"):
            if isinstance(query.get(name), float | int) and not isinstance(query[name], bool) and query[name] > MOST:
                query[name] = MOST
    return query


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Let half of the jobs be ones that run: a task's name is drawn from an endless set otherwise."""
    if isinstance(body, dict) and str(body.get("ref", "")).startswith("demo:"):
        body["ref"] = "demo:absent"  # loading a real model may take longer than any answer should
    if isinstance(body, dict) and isinstance(body.get("task"), str) and len(body["task"]) % 2:
        body["task"] = "noop"
        if isinstance(body.get("params"), dict):
            body["params"].pop("seconds", None)
        if "name" in body and not {"cron", "every", "at"} & set(body):
            body["every"] = "1h"  # a schedule; exactly one of the three is needed
    return body
