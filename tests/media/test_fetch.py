"""Fetch: bytes within limits, from public addresses only where that is asked for; each failure has its own error."""

import gzip
import ipaddress
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from helpers.local_server import body, serve
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.media import fetch as fetching
from pipeline.media.fetch import NAT64, FetchError, fetch, is_public, look, without_credentials

DATA = bytes(range(256)) * 40


def get(url: str, *, private: bool = True, max_bytes: int = 20_000, timeout: float = 5) -> bytes:
    return fetch(url, private=private, max_bytes=max_bytes, timeout=timeout)


def redirect(target: str, status: int = 302) -> Any:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def test_the_body_comes_whole() -> None:
    with serve(body(DATA)) as port:
        assert get(f"http://127.0.0.1:{port}/image?size=1") == DATA
        assert get(f"http://localhost:{port}") == DATA


def test_look_reads_the_type_and_length_alone() -> None:
    with serve(body(DATA, "Image/PNG; charset=x")) as port:
        content = look(f"http://127.0.0.1:{port}/", timeout=5)
    assert (content.media_type, content.length) == ("image/png", len(DATA))


def test_user_and_password_go_to_the_host_and_no_further() -> None:
    seen: list[str | None] = []

    def second(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers["Authorization"])
        body(b"x")(request)

    with serve(second) as other:

        def first(request: BaseHTTPRequestHandler) -> None:
            seen.append(request.headers["Authorization"])
            redirect({"/1": "/2", "/2": f"http://127.0.0.1:{other}/3"}[request.path])(request)

        with serve(first) as port:
            assert get(f"http://user:p%40ss@127.0.0.1:{port}/1") == b"x"
    assert seen == ["Basic dXNlcjpwQHNz", "Basic dXNlcjpwQHNz", None]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.org/a", "no address of the form"),
        ("photo.png", "no address of the form"),
        ("http://", "no address of the form"),
        ("http://a:b:c/", "cannot be read|can be read"),
        ("http://nowhere.invalid/", "nowhere.invalid is not known"),
    ],
)
def test_what_is_no_address_is_told(url: str, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        get(url)


def test_every_status_but_200_is_told() -> None:
    with serve(lambda request: request.send_error(404)) as port, pytest.raises(FetchError, match="404 Not Found"):
        get(f"http://127.0.0.1:{port}/")
    with pytest.raises(FetchError, match="cannot connect: Connection refused"):
        get(f"http://127.0.0.1:{port}/")


def test_a_stated_length_beyond_the_limit_is_refused_and_so_is_an_unstated_one() -> None:
    with serve(body(DATA)) as port:
        with pytest.raises(FetchError, match=r"more than the 10239 bytes .*: 10240"):
            get(f"http://127.0.0.1:{port}/", max_bytes=len(DATA) - 1)
        assert get(f"http://127.0.0.1:{port}/", max_bytes=len(DATA)) == DATA

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(DATA)

    with serve(endless) as port, pytest.raises(FetchError, match="more than the 20000 bytes"):
        get(f"http://127.0.0.1:{port}/")


def test_a_compressed_body_counts_as_what_it_unpacks_to() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < 20_000
    with serve(body(bomb, Content_Encoding="gzip")) as port, pytest.raises(FetchError, match="more than the 20000"):
        get(f"http://127.0.0.1:{port}/")
    with serve(body(gzip.compress(DATA), Content_Encoding="gzip")) as port:
        assert get(f"http://127.0.0.1:{port}/") == DATA


def test_a_body_that_is_cut_off_is_no_body() -> None:
    with (
        serve(body(DATA, Content_Length=str(len(DATA) + 1))) as port,
        pytest.raises(FetchError, match=r"ended after 10240 of 10241 bytes|broke off"),
    ):
        get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("part", ["nothing", "header", "body"])
def test_the_deadline_holds_though_bytes_drip_in(part: str) -> None:
    gone = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        start = {"nothing": b"", "header": b"HTTP/1.0 200 OK\r\nX: ", "body": b"HTTP/1.0 200 OK\r\n\r\n"}[part]
        request.wfile.write(start)
        for _ in range(200):
            if part != "nothing":
                request.wfile.write(b".")
            if gone.wait(0.05):
                return

    with serve(drip) as port:
        with pytest.raises(FetchError, match=r"no full answer within 0\.3 s"):
            get(f"http://127.0.0.1:{port}/", timeout=0.3)
        gone.set()


def test_redirects_are_followed_three_times_at_most() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        left = int(request.path.strip("/"))
        (redirect(f"/{left - 1}", 307) if left else body(DATA))(request)

    with serve(answer) as port:
        assert get(f"http://127.0.0.1:{port}/3") == DATA
        with pytest.raises(FetchError, match="more than 3 redirects"):
            get(f"http://127.0.0.1:{port}/4")
    with serve(redirect("file:///etc/passwd")) as port, pytest.raises(FetchError, match="no address of the form"):
        get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a00:1]",
        "[fe80::1]",
        "[fd00::1]",
        "[ff02::1]",
        "[2002:7f00:1::]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::a00:1]",
        "[2001:db8::1]",
        "[::127.0.0.1]",
    ],
)
def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(FetchError, match=r"is no public address|is not known"):
        get(f"http://{host}/", private=False)


def test_public_addresses_are_those_of_the_open_internet() -> None:
    for address in ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert is_public(ipaddress.ip_address(address)), address


@given(st.ip_addresses())
def test_no_wrapping_makes_an_address_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if isinstance(address, ipaddress.IPv4Address):
        for prefix in (0xFFFF << 32, 0x2002 << 112, 0x64FF9B << 96):
            shift = 80 if prefix == 0x2002 << 112 else 0
            assert is_public(ipaddress.IPv6Address(prefix | int(address) << shift)) == is_public(address)
    elif is_public(address) and not (address.ipv4_mapped or address.sixtofour or address in NAT64):
        assert address.is_global
        assert not address.is_multicast


def test_other_ports_are_refused_where_private_addresses_are() -> None:
    for url in ("http://8.8.8.8:8080/", "https://8.8.8.8:80/", "http://8.8.8.8:22/"):
        with pytest.raises(FetchError, match=r"port \d+ where only (80|443) is allowed"):
            get(url, private=False)


@pytest.fixture
def open_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 counts as public, and no other address of this machine."""
    loopback = ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr(fetching, "is_public", lambda address: address == loopback)


@pytest.mark.usefixtures("open_loopback")
def test_a_redirect_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(redirect("http://127.0.0.2/")) as port:
        monkeypatch.setattr(fetching, "PORTS", {"http": port})
        with pytest.raises(FetchError, match=r"127\.0\.0\.2 is no public address"):
            get(f"http://127.0.0.1:{port}/", private=False)


@pytest.mark.usefixtures("open_loopback")
def test_the_host_is_looked_up_once_and_that_address_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers anew with an address of the inner network finds nobody asking."""
    real, lookups = socket.getaddrinfo, []

    def answers(host: str, *rest: Any, **more: Any) -> Any:
        if host != "rebinding.test":
            return real(host, *rest, **more)
        lookups.append(host)
        return real("127.0.0.1" if len(lookups) == 1 else "127.0.0.3", *rest, **more)

    hosts = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        hosts.append(request.headers["Host"])
        body(DATA)(request)

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    with serve(answer) as port:
        monkeypatch.setattr(fetching, "PORTS", {"http": port})
        assert get(f"http://rebinding.test:{port}/", private=False) == DATA
    assert lookups == ["rebinding.test"]
    assert hosts == [f"rebinding.test:{port}"]


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(host: str, port: int, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    with pytest.raises(FetchError, match="is no public address"):
        get("http://two.test/", private=False)


def test_certificates_are_checked_against_the_host_name(
    pems: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = pems
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serve(body(DATA), context) as port:
        with pytest.raises(FetchError, match="certificate is not valid: self"):
            get(f"https://localhost:{port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert get(f"https://localhost:{port}/") == DATA
        here = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: here)
        with pytest.raises(FetchError, match="certificate is not valid: "):
            get(f"https://other.test:{port}/")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:secret@10.0.0.7:554/live?channel=1", "rtsp://10.0.0.7:554/live"),
        ("http://host/video?user=admin&pwd=secret#top", "http://host/video"),
        ("rtsp://h/user=admin&password=secret&channel=1", "rtsp://h/...&...&channel=1"),
        ("http://a:p@ss/w@host/x", "http://...@host/x"),
        ("http://host/a\nb", r"http://host/a\nb"),
        ("photo", "photo"),
    ],
)
def test_shown_addresses_hold_no_secret(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@given(st.text().filter(lambda user: "?" not in user), st.text())
def test_a_password_is_in_no_message(user: str, rest: str) -> None:
    url = f"ftp://{user}:topsecret@{rest}/?key=topsecret"
    assert "topsecret" not in without_credentials(url)
    with pytest.raises(InputError) as caught:
        get(url)
    assert "topsecret" not in str(caught.value)
    assert "\n" not in str(caught.value)
