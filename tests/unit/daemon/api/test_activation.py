"""Sockets handed over by launchd and systemd."""

import contextlib
import ctypes
import errno
import os
import socket

import pytest
from fakes_socket import short_folder

from daemon.api.activation import launchd_sockets, systemd_sockets
from jobs.errors import ServiceError


class FakeSystem:
    """libSystem with one or no socket."""

    def __init__(self, fds, status=0):
        self.freed = []
        self.array = (ctypes.c_int * max(1, len(fds)))(*fds)
        self.count = len(fds)
        self.status = status
        system = self

        class Activate:
            argtypes = restype = None

            def __call__(self, name, out, count):
                system.name = name
                if system.status == 0:
                    out._obj.contents = ctypes.cast(system.array, ctypes.POINTER(ctypes.c_int)).contents
                    count._obj.value = system.count
                return system.status

        class Free:
            argtypes = restype = None

            def __call__(self, pointer):
                system.freed.append(pointer)

        self.launch_activate_socket, self.free = Activate(), Free()


@contextlib.contextmanager
def listening():
    with short_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(folder / "s"))
        sock.listen()
        yield sock


def test_launchd_hands_over_its_socket():
    """The descriptor that launchd gives becomes a listening socket, and its array is given back."""
    with listening() as sock:
        system = FakeSystem([os.dup(sock.fileno())])
        (got,) = launchd_sockets(platform="darwin", library=lambda _: system)
        with got:
            assert got.getsockname() == sock.getsockname()
            assert not got.get_inheritable()
        assert system.name == b"http"
        assert len(system.freed) == 1


@pytest.mark.parametrize("status", [errno.ENOENT, errno.ESRCH])
def test_without_launchd_there_is_no_socket(status):
    """Not started by launchd, or no socket in the plist: an empty answer, not an error."""
    assert launchd_sockets(platform="darwin", library=lambda _: FakeSystem([], status)) == []


def test_launchd_is_not_asked_elsewhere():
    """On Linux nothing is loaded at all."""
    assert launchd_sockets(platform="linux", library=lambda _: pytest.fail("loaded")) == []


def test_a_refusal_of_launchd_is_an_error():
    """What launchd refuses for another reason is said with its reason."""
    with pytest.raises(ServiceError, match="did not hand over"):
        launchd_sockets(platform="darwin", library=lambda _: FakeSystem([], errno.EALREADY))


def test_systemd_hands_over_its_socket():
    """With LISTEN_PID and LISTEN_FDS for us the socket is taken, and the variables are gone for our children."""
    with listening() as sock:
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "X": "1"}
        (got,) = systemd_sockets(environ, first=os.dup(sock.fileno()))
        with got:
            assert got.getsockname() == sock.getsockname()
        assert environ == {"X": "1"}


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}]
)
def test_variables_for_somebody_else_are_ignored(environ):
    """Another process's sockets are not ours, and nonsense is no socket."""
    assert systemd_sockets(environ, first=10_000) == []


def test_what_is_no_listening_socket_is_refused():
    """A connected socket, or a closed descriptor, is an error and is not closed."""
    left, right = socket.socketpair()
    with left, right:
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        with pytest.raises(ServiceError, match="not a listening Unix socket"):
            systemd_sockets(environ, first=left.fileno())
        left.send(b"x")
    with pytest.raises(ServiceError, match="no usable socket"):
        systemd_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}, first=60_000)
