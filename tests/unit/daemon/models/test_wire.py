"""The wire: JSON lines between daemon and runner."""

import socket
import threading

import pytest

from daemon.models.wire import Wire, WireError


@pytest.fixture(name="ends")
def _ends():
    left, right = socket.socketpair()
    yield Wire(left), Wire(right)
    left.close()
    right.close()


def test_messages_arrive_in_order_and_whole(ends):
    """What one side sends, the other reads, whatever characters it has, until the end."""
    here, there = ends
    sent = [{"op": "submit", "text": "Zoë \n\u2028 😀 \ud800"}, {"op": "close"}]
    for message in sent:
        here.send(message)
    here.shut()

    assert list(there.messages()) == sent


def test_a_message_longer_than_a_read_arrives(ends):
    """A megabyte is put together from many reads."""
    here, there = ends
    sender = threading.Thread(target=lambda: (here.send({"op": "x", "text": "a" * 1_000_000}), here.shut()))
    sender.start()
    (message,) = there.messages()
    sender.join()

    assert len(message["text"]) == 1_000_000


@pytest.mark.parametrize("line", [b"{not json}\n", b"[1]\n", b'{"no": "op"}\n', b'{"op": 3}\n', b"[" * 100_000 + b"\n"])
def test_what_is_no_message_is_an_error(line):
    """Garbage, arrays, objects without an operation and depth bombs end the conversation with an error."""
    left, right = socket.socketpair()
    with left, right:
        threading.Thread(target=left.sendall, args=(line,)).start()
        with pytest.raises(WireError, match="not a message"):
            list(Wire(right).messages())


def test_a_line_without_end_is_refused():
    """A peer that never ends its line cannot fill our memory."""
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x" * 200)
        with pytest.raises(WireError, match="longer than 100"):
            Wire(right, max_line=100).read()


@pytest.mark.parametrize("message", [{"op": {1, 2}}, {"op": "x", "value": float("nan")}, {"op": "x" * 200}])
def test_what_cannot_travel_is_not_sent(message):
    """What is not JSON, or too long, is refused before a byte is sent."""
    left, right = socket.socketpair()
    with left, right:
        with pytest.raises(WireError):
            Wire(left, max_line=100).send(message)
        left.shutdown(socket.SHUT_WR)
        assert right.recv(10) == b""


def test_a_sender_that_waits_for_room_is_let_go_at_the_close(ends):
    """Closing while another thread's message does not fit into the socket ends that send with an error."""
    here, there = ends
    failed = threading.Event()
    begun = threading.Event()

    def send():
        begun.set()
        try:
            here.send({"op": "x", "text": "a" * 5_000_000})
        except OSError:
            failed.set()

    sender = threading.Thread(target=send)
    sender.start()
    begun.wait()
    there.read()
    here.close()
    sender.join()

    assert failed.is_set()


def test_a_reset_is_an_end(ends):
    """A peer that died reads as its end, and shutting down twice is fine."""
    here, there = ends
    here.shut()
    here.shut()

    assert there.read() is None
    assert there.fileno() > 0
