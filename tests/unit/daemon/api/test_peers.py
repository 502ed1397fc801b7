"""Who is at the other end of a socket."""

import os
import socket
import struct

from fakes_socket import short_folder

from daemon.api.peers import is_own, peer_uid


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
    """Both ends of a real connection are our own user's."""
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(folder / "s"))
        server.listen()
        client.connect(str(folder / "s"))
        accepted, _ = server.accept()
        with accepted:
            assert peer_uid(accepted) == os.geteuid()
            assert is_own(accepted)
            assert is_own(client)


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
