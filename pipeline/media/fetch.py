"""What an http(s) address holds, read within limits; for a server, from public addresses only."""

import base64
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from pipeline.base.errors import InputError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse
    from urllib3.connection import HTTPConnection
    from urllib3.util import Url

MAX_REDIRECTS = 3
PORTS = {"http": 80, "https": 443}
CHUNK = 1 << 16
HEADERS = {"User-Agent": "caffe-expressions", "Accept": "*/*", "Accept-Encoding": "identity"}
# IPv6 that may be public: global unicast (RFC 4291, 2.4) and NAT64's well-known prefix around an IPv4 (RFC 6052, 2.1).
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
SECRETS = re.compile(r"(?i)\b(user|login|username|pass|passwd|password|pwd|token|key|secret|auth)=[^/?#&;]*")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class FetchError(InputError):
    """An address that gives nothing that may be used."""


class StatusError(FetchError):
    """An answer with another status than 200."""

    def __init__(self, name: str, status: int) -> None:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "(an unknown status)"
        super().__init__(f"{name}: the server answered {status} {phrase}; check the address")
        self.status = status


@dataclass(frozen=True)
class Content:
    """media_type: of the Content-Type header, lower case, "" without one. length: bytes, None where not stated."""

    media_type: str
    length: int | None


def without_credentials(url: str) -> str:
    """The address as it may be shown: no user, password, query or fragment, and no password=... within its path."""
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")  # the last one: a password may hold anything
    host, slash, path = re.split(r"[?#]", place, maxsplit=1)[0].partition("/")
    unclear = f"...{at}" if re.search(r"[/?#]", credentials) else ""  # an @ of the path, or a password with a slash
    shown = f"{scheme}{separator}{unclear}{host}{slash}{SECRETS.sub('...', path)}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def fetch(url: str, *, private: bool, max_bytes: int, timeout: float) -> bytes:
    """The body that an http or https address answers with.

    timeout: seconds for everything, redirects included. private: whether addresses of this machine and its networks may
    be asked; without it every address that the host name stands for must be public, also after each of at most
    MAX_REDIRECTS redirects, and the port must be the scheme's own. The connection goes to the very address that was
    checked. Raises FetchError, which never shows a user, password or query.
    """
    with _answer(url, private, timeout) as (name, response, deadline):
        length = _length(response)
        too_large = f"{name}: more than the {max_bytes} bytes that are read"
        if length is not None and length > max_bytes:
            raise FetchError(f"{too_large}: {length}; give a smaller file")
        body = bytearray()
        while chunk := response.read1(CHUNK):
            deadline.check()
            body += chunk
            if len(body) > max_bytes:
                raise FetchError(f"{too_large}; give a smaller file")
        deadline.check()
        if length is not None and len(body) < length and not response.headers.get("Content-Encoding"):
            raise FetchError(f"{name}: ended after {len(body)} of {length} bytes; try again")
        return bytes(body)


def look(url: str, *, timeout: float) -> Content:
    """What the address, private ones included, says it holds, of which no more than the headers are read."""
    with _answer(url, True, timeout) as (_, response, _):
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return Content(media_type, _length(response))


def _length(response: "BaseHTTPResponse") -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None


class _Deadline:
    """Shuts the connection that is being waited for when the time is over: a socket's own time-out starts anew with
    every byte that drips in."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.end = time.monotonic() + seconds
        self.socket: socket.socket | None = None

    def left(self) -> float:
        self.check()
        return self.end - time.monotonic()

    def check(self) -> None:
        if time.monotonic() >= self.end:
            raise FetchError(f"{self.name}: no full answer within {self.seconds:g} s; is the server up?")

    def shut(self) -> None:
        if self.socket is not None:
            with suppress(OSError):  # closed in the same moment
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # not TLS's own, under the reader's feet


@contextmanager
def _answer(url: str, private: bool, timeout: float) -> Iterator[tuple[str, "BaseHTTPResponse", _Deadline]]:
    """The name to show, the answer with status 200, redirects followed, and the deadline of all that is read of it."""
    from http.client import HTTPException

    from urllib3.exceptions import HTTPError

    name = without_credentials(url)
    deadline = _Deadline(name, timeout)
    timer = threading.Timer(timeout, deadline.shut)
    timer.daemon = True
    timer.start()
    try:
        for _ in range(MAX_REDIRECTS + 1):
            connection, response = _ask(url, name, private, deadline)
            try:
                if response.status not in (301, 302, 303, 307, 308):
                    if response.status != 200:
                        raise StatusError(name, response.status)
                    yield name, response, deadline
                    return
            finally:
                connection.close()
            url = _redirected(url, response.headers.get("Location"), name)
        raise FetchError(f"{name}: more than {MAX_REDIRECTS} redirects; give the address they lead to")
    except (HTTPError, HTTPException, OSError, ValueError) as error:
        deadline.check()
        raise FetchError(f"{name}: {_cause(error)}") from None
    finally:
        timer.cancel()


def _redirected(url: str, location: str | None, name: str) -> str:
    if not location:
        raise FetchError(f"{name}: a redirect to nowhere; give the address it should lead to")
    following = urljoin(url, location)
    before, after = urlsplit(url), urlsplit(following)
    credentials, _, host = before.netloc.rpartition("@")
    if credentials and (before.scheme, host) == (after.scheme, after.netloc):
        following = after._replace(netloc=f"{credentials}@{after.netloc}").geturl()
    return following


def _ask(url: str, name: str, private: bool, deadline: _Deadline) -> tuple["HTTPConnection", "BaseHTTPResponse"]:
    parts = _parse(url, name, private)
    assert parts.scheme
    assert parts.host
    host = parts.host.strip("[]")
    port = parts.port or PORTS[parts.scheme]
    headers = {**HEADERS, "Host": parts.netloc or host}
    if parts.auth:
        headers["Authorization"] = "Basic " + base64.b64encode(unquote_to_bytes(parts.auth)).decode()
    addresses = _addresses(host, port, private, deadline)
    connection = _connect((parts.scheme, host, port), addresses, deadline)
    try:
        connection.request("GET", parts.request_uri, headers=headers, preload_content=False)
        return connection, connection.getresponse()
    except BaseException:
        connection.close()
        raise


def _parse(url: str, name: str, private: bool) -> "Url":
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    try:
        parts = parse_url(url)
    except LocationParseError:
        raise FetchError(f"{name}: no address that can be read; check its host and port") from None
    if parts.scheme not in PORTS or not parts.host:
        raise FetchError(f"{name}: no address of the form http://host/... or https://host/...")
    if not private and parts.port not in (None, PORTS[parts.scheme]):
        raise FetchError(f"{name}: port {parts.port} where only {PORTS[parts.scheme]} is allowed for {parts.scheme}")
    return parts


def _addresses(host: str, port: int, private: bool, deadline: _Deadline) -> list[str]:
    found: list[str] | OSError = []

    def resolve() -> None:
        nonlocal found
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except (OSError, UnicodeError) as error:
            found = error if isinstance(error, OSError) else OSError(str(error))

    resolver = threading.Thread(target=resolve, daemon=True)  # the system's resolver knows no time-out
    resolver.start()
    resolver.join(deadline.left())
    deadline.check()
    if isinstance(found, OSError) or not found:
        raise FetchError(f"{deadline.name}: the host {host} is not known; check the address and the network")
    for address in found:
        if not private and not is_public(ipaddress.ip_address(address)):
            raise FetchError(f"{deadline.name}: the host {host} is no public address; only those may be read from")
    return found


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet: neither of this machine, its networks, a group, nor reserved."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not (address.is_multicast or address.is_reserved)
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and address in NAT64:
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if embedded is not None:
        return is_public(embedded)
    return address in GLOBAL_UNICAST and address.is_global and address.teredo is None


def _connect(origin: tuple[str, str, int], addresses: list[str], deadline: _Deadline) -> "HTTPConnection":
    """A connection to the first of the addresses that takes one."""
    import ssl

    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.exceptions import HTTPError

    scheme, host, port = origin
    error: Exception | None = None
    for number, address in enumerate(addresses):
        timeout = deadline.left() / (len(addresses) - number)
        if scheme == "https":
            connection: HTTPConnection = HTTPSConnection(
                address, port, timeout=timeout, cert_reqs=ssl.CERT_REQUIRED, server_hostname=host
            )
        else:
            connection = HTTPConnection(address, port, timeout=timeout)
        try:
            connection.connect()
            connection.sock.settimeout(deadline.left())
            deadline.socket = connection.sock
            return connection
        except (HTTPError, OSError) as failure:
            connection.close()
            error = failure
    deadline.check()
    raise FetchError(f"{deadline.name}: cannot connect: {_cause(error)}")


def _cause(error: BaseException | None) -> str:
    """What lies under urllib3's wrappings, which would show the whole address."""
    import ssl

    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the server's certificate is not valid: {error.verify_message}"
        if isinstance(error, TimeoutError):
            return "no answer in time; is the server up?"
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        error = error.__cause__ or error.__context__
    return "the connection broke off; try again"
