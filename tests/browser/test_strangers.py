"""What the server answers to those it should not trust: foreign names, foreign pages, large uploads, odd paths."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

import pytest

from probes.errors import UserError
from workbench.commands.application import check_address
from workbench.serving import build_command

LIMIT = 50 * 1024 * 1024


def ask(base: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """Status and body of a request with these headers, underscores for hyphens."""
    address = urlsplit(base).netloc
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    # An accepted WebSocket has no end.
    body = b"" if answer.status == 101 else answer.read()
    connection.close()
    return answer.status, body


def open_socket(base: str, **headers: str) -> int:
    """Status of the request that would open the app's WebSocket."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    return ask(base, "/_stcore/stream", **upgrade, **headers)[0]


@pytest.mark.browser
def test_only_its_own_pages_under_its_own_name_are_served(shared: str) -> None:
    own = urlsplit(shared).netloc
    port = own.partition(":")[2]
    assert open_socket(shared, Origin=shared) == 101
    assert open_socket(shared, Host=f"localhost:{port}", Origin=f"http://localhost:{port}") == 101
    for origin in ("http://evil.example", "https://127.0.0.1.evil.example", "null", f"http://evil.example:{port}"):
        assert open_socket(shared, Origin=origin) in (400, 403), origin
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "user@127.0.0.1", ""):
        assert open_socket(shared, Host=host, Origin=f"http://{host}") in (400, 403), host


@pytest.mark.browser
def test_nothing_is_taken_without_a_session_and_its_token(shared: str) -> None:
    path = "/_stcore/upload_file/00000000-0000-0000-0000-000000000000/x"
    status, _ = ask(shared, path, "PUT", Content_Length="10", Content_Type="multipart/form-data; boundary=x")
    assert 400 <= status < 500
    status, _ = ask(shared, path, "PUT", Content_Length=str(LIMIT + (1 << 20)), Content_Type="multipart/form-data")
    assert 400 <= status < 500


@pytest.mark.browser
@pytest.mark.parametrize("path", ["/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/static/../../../etc/passwd",
    "/media/../../etc/passwd", "/app/static/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/_stcore/../../etc/passwd",
    "/%00", "/component/x/../../../../etc/passwd", "/_stcore/agent/interact"])  # fmt: skip
def test_no_path_reads_a_file(shared: str, path: str) -> None:
    status, body = ask(shared, path)
    assert b"root:" not in body
    assert status < 500


@pytest.mark.browser
def test_the_agent_interface_is_off(shared: str) -> None:
    assert ask(shared, "/_stcore/agent/interact", "POST", Content_Length="0")[0] in (403, 404, 405)


def test_an_address_in_use_is_told_before_the_server_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot listen"):
            check_address("127.0.0.1", taken.getsockname()[1])
    assert "127.0.0.1" in build_command(1)
