"""The sockets: who may connect, for how long, and how it all ends."""

import asyncio
import ipaddress
import json
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.base.rate_limit import RateLimit
from pipeline.server.limits import Limits, client_of
from pipeline.server.problems import Problem
from pipeline.server.sessions import TOO_OFTEN

HEAD_BYTES = 16 << 10  # of a request's head
PIECE_BYTES = 4 << 10  # that are parsed at a time, before others have their turn
CHUNK_BYTES = 16 << 10  # of a body, beside a 32nd of it, that may go into the framing of its chunks
LINGER_SECONDS = 5.0  # for a client that sends more after it was refused
STOP_SECONDS = 5  # for answers that are on their way when the server is stopped
SMALL_BYTES = 1 << 10  # of a WebSocket's fragment; smaller ones count as messages do
PING_SECONDS = 20.0  # between pings on a WebSocket, and for each to be answered


@dataclass(frozen=True)
class Listen:
    """Where to listen. certificate, key: PEM files, None without TLS. proxy: addresses whose X-Forwarded-For counts."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    proxy: str | None = None

    @property
    def loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Clients:
    """The connections that are open, by the clients that have them. proxy: where those of many clients come from."""

    def __init__(self, limits: Limits, proxy: str | None) -> None:
        self.limits = limits
        self.proxy = ipaddress.ip_network(proxy) if proxy else None
        self.open: Counter[str] = Counter()
        self._handshakes: dict[Any, tuple[str, asyncio.TimerHandle]] = {}  # of TLS that go on, by address

    def begin_handshake(self, connected: socket.socket, address: Any) -> bool:
        """Count a connection whose TLS begins, and end it when that takes too long. Returns whether it may be open."""
        client = client_of(str(address[0]))
        others = Counter(other for other, _ in self._handshakes.values())
        if self.open.total() + len(self._handshakes) >= self.limits.connections:
            return False
        if self.open[client] + others[client] >= self.limits.client_connections and not self._is_proxy(client):
            return False

        def end() -> None:
            self.end_handshake(address)
            with suppress(OSError):  # the client is gone already
                connected.shutdown(socket.SHUT_RDWR)  # whoever waits for more sees the end

        timer = asyncio.get_running_loop().call_later(self.limits.head_seconds, end)
        self._handshakes[address] = (client, timer)
        return True

    def end_handshake(self, address: Any) -> None:
        """It is done or its connection is gone; from a connection without TLS this does nothing."""
        if address in self._handshakes:
            self._handshakes.pop(address)[1].cancel()

    def refusal(self, client: str) -> str | None:
        """Why a connection more is refused, or None."""
        if self.open.total() > self.limits.connections:
            return "Too many connections are open."
        if self.open[client] > self.limits.client_connections and not self._is_proxy(client):
            return f"Each client may have {self.limits.client_connections} connections open."
        return None

    def _is_proxy(self, client: str) -> bool:
        return self.proxy is not None and "/" not in client and ipaddress.ip_address(client) in self.proxy


class TlsListener(socket.socket):
    """A listening socket that counts what it accepts: asyncio tells of a connection only when its handshake is done."""

    clients: Clients

    @classmethod
    def of(cls, listener: socket.socket, clients: Clients) -> "TlsListener":
        """Another socket on the same port."""
        counted = cls(listener.family, listener.type, listener.proto, os.dup(listener.fileno()))
        counted.clients = clients
        return counted

    def accept(self) -> tuple[socket.socket, Any]:
        """As of every socket, but connections beyond the limits are closed: without TLS none can be answered."""
        while True:
            accepted, address = super().accept()
            connected = Accepted(accepted.family, accepted.type, accepted.proto, accepted.detach())
            if self.clients.begin_handshake(connected, address):
                connected.gone = partial(self.clients.end_handshake, address)
                return connected, address
            connected.close()


class Accepted(socket.socket):
    """A connection. gone: is called when it closes."""

    gone: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        if self.gone:
            self.gone()


class CountedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose pings, pongs and small fragments, which the application never sees, have a rate of their own.

    It closes one that sends more of them than it may send messages.
    """

    def __init__(self, *, limits: Limits, **options: Any) -> None:
        super().__init__(**options)
        self._rate = RateLimit(limits.frame_rate, max(1, int(limits.frame_rate)))

    def handle_ping(self) -> None:
        if self._may_send():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if self._may_send():
            super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        if len(event.data) >= SMALL_BYTES or event.fin or self._may_send():
            super().handle_cont(event)

    def _may_send(self) -> bool:
        if self.close_sent or self._rate.take("") == 0:
            return not self.close_sent
        self.close_sent = True
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": TOO_OFTEN})
        self.conn.send_close(TOO_OFTEN, f"more than {self._rate.rate:g} pings or fragments a second")
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()
        return False


class Connection(asyncio.Protocol):
    """Stands between a socket and the protocol that speaks HTTP on it, and knows both as asyncio defines them.

    It ends what takes too long: a request's head, an answer that is not taken. It hands on little at a time, so that
    what takes long to parse holds nobody else up. It closes in such a way that the last answer arrives.
    """

    def __init__(self, protocol: asyncio.Protocol, clients: Clients) -> None:
        self.protocol = protocol
        self.clients = clients
        self.limits = clients.limits
        self.loop = asyncio.get_running_loop()
        self.received = 0  # bytes, that were handed on
        self._client = ""
        self._waiting = bytearray()  # to be handed on
        self._feeding = False
        self._paused = False  # by the protocol
        self.ending = False
        self.left = self.loop.create_future()  # done when the protocol knows that the connection is gone
        self._gone = False  # the protocol was told so
        self._late: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        _end_when_dead(self.transport, self.limits.send_seconds)
        peer = transport.get_extra_info("peername")
        self.clients.end_handshake(peer)
        self._client = client_of(str(peer[0]) if peer else None)
        self.clients.open[self._client] += 1
        refusal = self.clients.refusal(self._client)
        if refusal is not None:
            self._gone = True  # the protocol never knew
            self.transport.write(_full(refusal))
            self.end()
            return
        self.protocol.connection_made(Outlet(self))
        self._wait(self.limits.head_seconds, self.end)

    def begin(self) -> None:
        """A request's head is here."""
        if not self.ending:
            self._wait(0, None)

    def finish(self) -> None:
        """Its answer is given; from now on the next head is waited for."""
        if not self.ending:
            self._wait(self.limits.head_seconds, self.end)

    def _wait(self, seconds: float, call: Callable[[], None] | None) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = self.loop.call_later(seconds, call) if call else None

    def data_received(self, data: bytes) -> None:
        if self.ending:
            return
        self._waiting += data
        if not self._feeding:
            self._feed()

    def _feed(self) -> None:
        """Hand on a piece, and the next once others had their turn."""
        self._feeding = False
        if self._paused or self.ending or not self._waiting:
            return
        piece = bytes(self._waiting[:PIECE_BYTES])
        del self._waiting[:PIECE_BYTES]
        self.received += len(piece)
        token = CONNECTION.set(self)
        try:
            self.protocol.data_received(piece)
        except Exception as error:  # a protocol that does not know what to answer to what came
            log.debug("a connection ended by %s", type(error).__name__)
            self.end()
        finally:
            CONNECTION.reset(token)
        if self._waiting and not self.ending:
            self.transport.pause_reading()
            self._feeding = True
            self.loop.call_soon(self._feed)
        elif not self._paused:
            self.transport.resume_reading()

    def pause(self) -> None:
        """For the protocol: no more for now."""
        self._paused = True
        self.transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if self._waiting and not self._feeding:
            self._feeding = True
            self.loop.call_soon(self._feed)
        elif not self._waiting:
            self.transport.resume_reading()

    def end(self) -> None:
        """Close when all is written, and until then take what still comes.

        A socket that is closed while there is something to read is reset, and what was written last may be lost.
        """
        if self.ending:
            return
        self.ending = True
        self._waiting.clear()
        self._leave()
        if self.transport.is_closing():
            return
        self._wait(LINGER_SECONDS, self.transport.abort)
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:  # the client is gone already
                self.transport.abort()
            self.transport.resume_reading()
        else:  # TLS, which takes what comes until the other side has closed as well
            self.transport.close()

    def _leave(self) -> None:
        """Tell the protocol that the connection is gone, once all is written that it wrote."""
        if self._gone:
            return
        if self.transport.get_write_buffer_size() and not self.transport.is_closing():
            self.loop.call_later(0.05, self._leave)
        else:
            self._gone = True
            # Not at once: it closes in the midst of its own work, and another may take its place before that is done.
            self.loop.call_soon(self._tell, None)

    def _tell(self, error: Exception | None) -> None:
        self.protocol.connection_lost(error)
        self.left.set_result(None)

    def eof_received(self) -> bool | None:
        return None if self.ending else self.protocol.eof_received()

    def pause_writing(self) -> None:
        self._stuck = self.loop.call_later(self.limits.send_seconds, self.transport.abort)
        if not self._gone:
            self.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
        if not self._gone:
            self.protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ending = True
        self.clients.open[self._client] -= 1
        if not self.clients.open[self._client]:
            del self.clients.open[self._client]
        self._wait(0, None)
        if self._stuck is not None:
            self._stuck.cancel()
        if not self._gone:
            self._gone = True
            self._tell(exc)


class Outlet(asyncio.Transport):
    """What the protocol takes for the socket."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.connection.transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_closing():
            self.connection.transport.write(data)

    def is_closing(self) -> bool:
        return self.connection.ending or self.connection.transport.is_closing()

    def close(self) -> None:
        self.connection.end()

    def abort(self) -> None:
        self.connection.transport.abort()

    def pause_reading(self) -> None:
        self.connection.pause()

    def resume_reading(self) -> None:
        self.connection.resume()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.connection.protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.connection.protocol


CONNECTION: ContextVar[Connection] = ContextVar("connection")  # by which a request came


class Watched:
    """The application, whose requests tell their connections when they begin and end.

    A request whose body is not wanted is the connection's last. A body in chunks of a few bytes is not taken.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            asyncio.get_running_loop().set_exception_handler(_say_in_one_line)
            await self.app(scope, receive, send)
            return
        connection = CONNECTION.get()
        connection.begin()
        try:
            if scope["type"] == "websocket":
                await self.app(scope, receive, send)
            else:
                await self._answer(connection, scope, receive, send)
        finally:
            connection.finish()

    async def _answer(self, connection: Connection, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        more = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        start, taken = connection.received, 0

        async def take() -> Message:
            nonlocal more, taken
            message = await receive()
            if message["type"] == "http.request":
                more = message.get("more_body", False)
                taken += len(message.get("body", b""))
                if connection.received - start - taken > CHUNK_BYTES + taken // 32:
                    raise Problem("small_chunks", "The body comes in chunks of a few bytes.")
            return message

        async def give(message: Message) -> None:
            if connection.ending:  # it was answered that what came is no HTTP
                await connection.left
                return
            if more and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self.app(scope, take, give)


def _say_in_one_line(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What went wrong outside every request: without a traceback, which visitors could fill the log with."""
    error = context.get("exception")
    log.error("error: %s (%s)", type(error).__name__ if error else "no exception", context["message"])


def _end_when_dead(transport: asyncio.Transport, seconds: float) -> None:
    """Have the system end a connection whose other end is gone or takes nothing, also when all is written."""
    connected = transport.get_extra_info("socket")
    if connected is None:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))


def _full(refusal: str) -> bytes:
    """An answer to a connection beyond the number that may be open."""
    body = json.dumps(Problem("busy", refusal).to_json()).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 5\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def check_certificate(certificate: Path, key: Path) -> None:
    """Raises InputError when the PEM files are missing, do not belong together, or the key has a password."""
    for path in (certificate, key):
        if not path.is_file():
            raise InputError(f"{path}: no such file, where a PEM file for TLS was expected")

    def password() -> str:
        raise InputError(f"{key}: the key has a password, which is not asked for; give one without")

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        raise InputError(
            f"{certificate}, {key}: no certificate and its key in PEM ({error.reason or 'not readable'})"
        ) from None


def bind(listen: Listen) -> socket.socket:
    """A listening socket. Raises InputError naming the address when it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1024)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:  # the latter of a name that can be none
        why = error.strerror if isinstance(error, OSError) else "no name of a host"
        raise InputError(
            f"{listen.host}:{listen.port}: cannot listen there: {why}; choose another --host or --port"
        ) from None
    return listener


class Server(uvicorn.Server):
    """Counts the connections whose TLS goes on, too, and calls started_call once it takes requests."""

    def __init__(self, config: uvicorn.Config, clients: Clients) -> None:
        super().__init__(config)
        self.clients = clients
        self.started_call: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.is_ssl and sockets:
            sockets = [TlsListener.of(each, self.clients) for each in sockets]
        await super().startup(sockets)
        if self.started and self.started_call:
            self.started_call()


def server(app: ASGIApp, listen: Listen, limits: Limits) -> Server:
    """A server that is run with `run(sockets=[bind(listen)])`."""
    # What it says are visitors' mistakes, some with a traceback; faults of ours are told by Guard.
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        Watched(app),
        http="h11",
        ws=cast("type[asyncio.Protocol]", partial(CountedWebSocket, limits=limits)),
        ws_max_size=limits.frame_bytes,
        ws_per_message_deflate=False,  # JPEGs do not get smaller, and what inflates is an attack
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        log_config=None,
        access_log=False,  # it would hold addresses
        server_header=False,
        proxy_headers=listen.proxy is not None,
        forwarded_allow_ips=listen.proxy,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=listen.certificate,
        ssl_keyfile=listen.key,
    )
    config.load()
    speaks, clients = config.http_protocol_class, Clients(limits, listen.proxy)

    def accept(**options: Any) -> Connection:
        return Connection(speaks(**options), clients)

    config.http_protocol_class = cast("type[asyncio.Protocol]", accept)
    return Server(config, clients)


def announce(listener: socket.socket, listen: Listen) -> None:
    """Say where it serves."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("serving on %s://%s:%d; stop with Ctrl-C", "https" if listen.certificate else "http", shown, port)


def run(
    app: ASGIApp, listener: socket.socket, listen: Listen, limits: Limits, started: Callable[[], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM; open WebSockets are then closed with code 1012, answers on their way sent.

    started: is called when requests are taken.
    """
    try:
        served = server(app, listen, limits)
        served.started_call = started
        served.run(sockets=[listener])
    finally:
        listener.close()
