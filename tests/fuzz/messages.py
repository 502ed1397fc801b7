"""Messages: the queue's hints and the wire between daemon and runner."""

from __future__ import annotations

import json
import math
from typing import Any

from huey.registry import Message

from daemon.models import wire
from fuzz.target import Target
from jobs.queue import HintSerializer


def check_hint(data: bytes, serializer: Any) -> None:
    """Whatever was read names one job of at most 64 characters, and what was written is read again."""
    honest = data.decode(errors="replace")[:64]
    written = serializer._serialize(Message(id="x", name="mlxd.run_job", args=(honest,), kwargs={}))
    assert serializer._deserialize(written).args == (honest,), "a hint does not come back as it was written"
    try:
        message = serializer._deserialize(data)
    except (ValueError, RecursionError):
        return
    (job_id,) = message.args
    assert isinstance(job_id, str), "a job's id is no text"
    assert len(job_id) <= 64, f"an id of {len(job_id)} characters"
    assert message.kwargs == {}, "a message brings arguments"
    assert serializer._deserialize(serializer._serialize(message)) == message, "a hint changes when it is written again"


class _CutIds(HintSerializer):
    """The planted bug: an id of 64 characters loses the last one."""

    def _deserialize(self, data: bytes) -> Message:
        message = super()._deserialize(data)
        (job_id,) = message.args
        return message._replace(args=(job_id[:63],))


class _Sink:
    """The sending half of a socket."""

    def __init__(self) -> None:
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data


def check_wire(data: bytes, make: Any) -> None:
    """The same bytes mean the same messages however they are cut, and a message that is sent again stays itself."""
    cut, data = (data[0] % 16 + 1, data[1:]) if data else (1, data)
    whole = _read(make, [data])
    pieces = _read(make, [data[at : at + cut] for at in range(0, len(data), cut)])
    assert repr(whole) == repr(pieces), "cutting changes what is read"
    for message in whole[0]:
        assert isinstance(message, dict), "a message is no object"
        assert isinstance(message.get("op"), str), "a message has no op"
        sink = _Sink()
        try:
            make(sink).send(message)
        except wire.WireError:
            assert not _finite(message), "a good message cannot be sent again"
            continue
        assert sink.sent.count(b"\n") == 1, "a message is more than one line"
        assert _read(make, [sink.sent])[0] == [message], "a message changes on its way"


def _read(make: Any, chunks: list[bytes]) -> tuple[list[Any], bool]:
    """Return the messages, and whether the connection was refused at last."""
    end, found = make(None), []
    try:
        for chunk in chunks:
            found.extend(_one_by_one(end, chunk, found))
    except wire.WireError:
        return found, True
    return found, False


def _one_by_one(end: Any, chunk: bytes, found: list[Any]) -> list[Any]:
    for message in end._split(chunk):
        found.append(message)  # noqa: PERF402 - those before the one that is refused count too
    return []


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


class _Trusting(wire.Wire):
    """The planted bug: whatever is JSON counts as a message."""

    def _split(self, chunk: bytes) -> Any:
        *whole, rest = (self._pending + chunk).split(b"\n")
        self._pending = bytearray(rest)
        for line in whole:
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise wire.WireError from error


TARGETS = [
    Target("hints", check_hint, HintSerializer(), {"long ids are cut": _CutIds()}),
    Target("wire", check_wire, wire.Wire, {"any JSON is a message": _Trusting}),
]
