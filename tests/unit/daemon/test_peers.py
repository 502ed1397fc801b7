"""Who is at the other end of a socket."""

import os
import socket
import struct

from daemon.peers import is_own, peer_uid


class Options:
    """A socket that answers getsockopt as told."""

    def __init__(self, answer):
        self.answer = answer

    def getsockopt(self, level, option, size):
        if isinstance(self.answer, Exception):
            raise self.answer
        self.asked = (level, option, size)
        return self.answer


def test_the_kernel_says_who_is_there():
    """A real pair of connected sockets is our own user's."""
    left, right = socket.socketpair()
    with left, right:
        assert peer_uid(left) == os.geteuid()
        assert is_own(right)


def test_macos_answers_with_an_xucred():
    """LOCAL_PEERCRED at SOL_LOCAL gives 76 bytes with the user id second."""
    fake = Options(struct.pack("=IIhxx16I", 0, 501, 1, *[20] * 16))
    assert peer_uid(fake, platform="darwin") == 501
    assert fake.asked == (0, 1, 76)


def test_doubt_means_a_stranger():
    """Short answers, other versions and errors give no user id, and no user id is not ours."""
    assert peer_uid(Options(b"\0" * 8), platform="darwin") is None
    assert peer_uid(Options(struct.pack("=IIhxx16I", 9, 501, 1, *[20] * 16)), platform="darwin") is None
    assert peer_uid(Options(b"\0"), platform="linux") is None
    assert peer_uid(Options(OSError(107, "not connected")), platform="linux") is None
    assert not is_own(Options(OSError(107, "not connected")))
