"""Who is let through on the TCP port, and how each defence keeps its own attacker out."""

import pytest

from daemon.api.authorization import Authorized, refusal

TOKEN = b"t" * 43
HOSTS = frozenset({b"127.0.0.1:8765", b"localhost:8765"})


def headers(**changes):
    """An honest request's headers; None leaves one out."""
    said = {"host": "127.0.0.1:8765", "authorization": f"Bearer {TOKEN.decode()}", **changes}
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in said.items() if value is not None]


def status(sent, hosts=HOSTS, token=TOKEN):
    found = refusal(sent, hosts, token)
    return None if found is None else found.status


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765"])
def test_an_honest_program_is_let_through(host):
    """Host with its port and the token: that is all it takes, with a JSON body too."""
    assert status(headers(host=host)) is None
    assert status(headers(host=host, content_length="2", content_type="application/json; charset=utf-8")) is None
    assert status(headers(host=host, content_length="0")) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:08765", "localhost.:8765", "LOCALHOST:8765", "",
        "127.0.0.1:8765.evil.example", "evil.example#127.0.0.1:8765", "user@127.0.0.1:8765", "[::1]:8765", None,
        "127.1:8765", "2130706433:8765", "127.0.0.1:8765, evil.example", " 127.0.0.1:8765", "xn--localhost-:8765",
    ],
)  # fmt: skip
def test_only_our_own_address_is_served(host):
    """A name that somebody's DNS points here, and each look-alike, is refused; without the list they would get in."""
    sent = headers(host=host)
    assert status(sent) == 403
    assert host is None or status(sent, hosts={*HOSTS, host.encode()}) is None


def test_two_hosts_are_refused():
    """Which one counts would be a matter of taste."""
    assert status([*headers(), (b"host", b"127.0.0.1:8765")]) == 403


@pytest.mark.parametrize("origin", ["null", "", "http://127.0.0.1:8765", "https://evil.example", "file://"])
def test_pages_are_refused(origin):
    """Any Origin, our own address and an empty one included."""
    assert status(headers(origin=origin)) == 403


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", f"Basic {TOKEN.decode()}", TOKEN.decode(), f"Bearer {TOKEN.decode()} ",
     f"Bearer {TOKEN.decode()}x", f"Bearer {TOKEN.decode()[:-1]}", "Bearer " + "u" * 43],
)  # fmt: skip
def test_without_the_token_nobody_gets_in(authorization):
    """Every byte of it is needed, once."""
    assert status(headers(authorization=authorization)) == 401
    assert status([*headers(), (b"authorization", b"Bearer " + TOKEN)]) == 401


@pytest.mark.parametrize("length", ["5", "007"])
@pytest.mark.parametrize(
    "kind",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", "application/jsonp",
     "text/plain; application/json"],
)  # fmt: skip
def test_what_a_form_can_send_is_refused(length, kind):
    """A body is JSON and says so."""
    assert status(headers(content_length=length, content_type=kind)) == 415
    chunked = headers(transfer_encoding="chunked", content_type=kind)
    assert status(chunked) == 415


def test_the_short_way_leads_through_the_gate():
    """Only what fits it and is let through goes past the application; the others are refused there."""

    class Short:
        def way(self, scope):
            return self.take if scope["path"] == "/v1/jobs" else None

        def take(self, body, told):
            return True

    gate = Authorized(None, hosts=[host.decode() for host in HOSTS], token=TOKEN)
    short = gate.before(Short())

    way = short.way({"path": "/v1/jobs", "headers": headers()})
    assert way is not None
    assert way(b"", lambda _: None)
    assert short.way({"path": "/v1/health", "headers": headers()}) is None
    for wrong in (headers(authorization=None), headers(origin="null"), headers(host="evil.example:8765")):
        assert short.way({"path": "/v1/jobs", "headers": wrong}) is None
