"""The optional TCP port, by bytes on a real connection."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fakes_acceptance import SpawnedDaemon
from fakes_socket import FakeService, short_folder

from daemon.api import authorization, tcp
from daemon.config.http import Address, HttpConfig
from jobs.errors import ConfigError


@contextlib.contextmanager
def port_of(folder, host="127.0.0.1"):
    """Serve on a free port; give it and the token."""
    server = tcp.tcp_server(FakeService(), Address(host, 0), token=folder / "token")
    server.start()
    try:
        yield tcp.bound(server._listener).port, (folder / "token").read_text().strip()
    finally:
        assert server.stop()


def ask(port, *lines, body=b"", host="127.0.0.1"):
    """Send one raw request and return everything that comes back."""
    with socket.create_connection((host, port), timeout=5) as sock:
        sock.sendall("".join(f"{line}\r\n" for line in (*lines, "Connection: close", "")).encode() + body)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while got := sock.recv(65536):
                answer += got
        return answer.decode()


def test_the_same_interface_with_a_token(tmp_path):
    """The token opens it; its absence, another Host, an Origin and a form do not, and no answer speaks of CORS."""
    with port_of(tmp_path) as (port, token):
        host, bearer = f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {token}"
        answer = ask(port, "GET /v1/health HTTP/1.1", host, bearer)
        assert answer.startswith("HTTP/1.1 200 ")
        assert '"status":"ok"' in answer
        refused = [
            ask(port, "GET /v1/health HTTP/1.1", host),
            ask(port, "GET /v1/health HTTP/1.1", f"Host: rebound.example:{port}", bearer),
            ask(port, "GET /v1/health HTTP/1.1", host, bearer, "Origin: http://localhost"),
            ask(port, "OPTIONS /v1/jobs HTTP/1.1", host, "Origin: http://a.example",
                "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"),
            ask(port, "POST /v1/jobs HTTP/1.1", host, bearer, "Content-Type: text/plain", "Content-Length: 12",
                body=b'{"task":"a"}'),
            ask(port, "GET /openapi.json HTTP/1.1", host),
            ask(port, "GET /metrics HTTP/1.1", host),
        ]  # fmt: skip
        assert [one.split()[1] for one in refused] == ["401", "403", "403", "403", "415", "401", "401"]
        assert not any("access-control" in one.lower() or "set-cookie" in one.lower() for one in (answer, *refused))
        assert not any(token in one for one in refused)


def test_a_submission_needs_the_token_too(tmp_path):
    """A plain submission is taken with the token, and refused without it or from elsewhere, as everything is."""
    with port_of(tmp_path) as (port, token):
        host, bearer = f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {token}"
        plain = ["POST /v1/jobs HTTP/1.1", "Content-Type: application/json", "Content-Length: 12"]
        answers = [
            ask(port, *plain, *more, body=b'{"task":"a"}')
            for more in ([host, bearer], [host], [f"Host: rebound.example:{port}", bearer], [host, bearer, "Origin: x"])
        ]
        assert [one.split()[1] for one in answers] == ["201", "401", "403", "403"]
        assert '"task":"a"' in answers[0]


def test_nothing_is_smuggled_behind_a_refusal(tmp_path):
    """A second request in the same bytes as a refused one is not answered."""
    with port_of(tmp_path) as (port, token):
        good = f"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + good.encode())
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while got := sock.recv(65536):
                    answer += got
    assert answer.count(b"HTTP/1.1 ") == 1


def test_without_the_gate_a_rebound_page_would_get_in(tmp_path, monkeypatch):
    """The control: with the defence switched off the same bytes are served."""
    monkeypatch.setattr(authorization, "refusal", lambda *_: None)
    with port_of(tmp_path) as (port, _):
        answer = ask(port, "GET /v1/health HTTP/1.1", "Host: rebound.example", "Origin: http://rebound.example")
        assert answer.startswith("HTTP/1.1 200 ")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_the_other_loopback_address(tmp_path):
    """[::1] with its brackets in the Host."""
    try:
        with port_of(tmp_path, "::1") as (port, token):
            bearer = f"Authorization: Bearer {token}"
            assert " 200 " in ask(port, "GET /v1/health HTTP/1.1", f"Host: [::1]:{port}", bearer, host="::1")
            assert " 403 " in ask(port, "GET /v1/health HTTP/1.1", f"Host: 127.0.0.1:{port}", bearer, host="::1")
    except ConfigError:
        pytest.skip("no IPv6 loopback here")


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0:1", "192.168.0.1:80", "localhost:80", "[::]:80", "127.0.0.1", "127.0.0.1:0", ":80", "127.0.0.1:65536",
     "127.0.0.1:080", "127.0.0.2:80", "127.0.0.1:80\n", "8765"],
)  # fmt: skip
def test_only_this_machine_can_be_configured(text):
    """Whatever is not one of the two loopback addresses with a port is a mistake."""
    with pytest.raises(ValueError, match="PORT"):
        HttpConfig(listen=text)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.1"])
def test_nothing_else_is_ever_bound(host):
    """Also where the configuration is not asked."""
    with pytest.raises(ConfigError, match="only 127"):
        tcp.bind(Address(host, 0))


def test_a_daemon_opens_a_port_only_if_asked():
    """No port by default; with [http] one, on loopback; a port that is taken is told, and the socket serves."""
    daemon = SpawnedDaemon()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        try:
            daemon.configure(f'[http]\nlisten = "127.0.0.1:{port}"\n')
            daemon.start()
            health = daemon.client.health()
            assert any(str(port) in one for one in health.problems)
            assert ports_of(health.pid) == set()
            taken.close()
            daemon.ok("stop")
            daemon.process.wait(30)
            daemon.start()
            health = daemon.client.health()
            assert ports_of(health.pid) == {("127.0.0.1", port)}
            token = daemon.json("config", "path", "--json")["token"]
            assert "http-token" in daemon.output
            secret = Path(token).read_text().strip()
            answer = ask(port, "GET /v1/health HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {secret}")
            assert " 200 " in answer.partition("\n")[0]
            assert secret not in daemon.output
            assert secret not in (daemon.home / "logs" / "mlxd.log").read_text()
            daemon.configure("")
            assert daemon.client.reload().needs_restart == ("http.listen",)
            daemon.ok("stop")
            daemon.process.wait(30)
            daemon.start()
            assert ports_of(daemon.client.health().pid) == set()
        finally:
            daemon.close()


def ports_of(pid):
    """Return the TCP addresses a process listens on."""
    found = psutil.Process(pid).net_connections("inet")
    return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_with_the_port_but_not_the_token():
    """Another user reaches the port, but not the token's file, even in a folder open to all."""
    with short_folder() as folder, port_of(folder) as (port, _):
        folder.chmod(0o755)
        code = (  # the interpreter may lie where the other user cannot read: everything is imported before
            "import encodings.idna, os, socket, sys\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "try: open(sys.argv[2]); print('read')\n"
            "except PermissionError: print('kept')\n"
            "sock = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
            "sock.sendall(f'GET /v1/health HTTP/1.1\\r\\nHost: 127.0.0.1:{sys.argv[1]}\\r\\n\\r\\n'.encode())\n"
            "print(sock.recv(100).split()[1].decode())\n"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, str(port), str(folder / "token")],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.split() == ["kept", "401"]
