"""The sockets: who may connect, for how long, and how it all ends."""

import asyncio
import functools
import ipaddress
import json
import logging
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.server.limits import Limits
from pipeline.server.problems import Problem

HEAD_BYTES = 16 << 10  # of a request's head
LINGER_SECONDS = 5.0  # for a client that goes on sending after it was refused
STOP_SECONDS = 5  # for answers that are on their way when the server is stopped
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


class TimedProtocol(H11Protocol):
    """uvicorn's, with an end to waiting: for a request's head, for a refused body to end, for an answer to be taken."""

    def __init__(self, *arguments: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.limits = limits
        self.late: asyncio.TimerHandle | None = None  # closes the connection when nothing stops it
        self.stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _end_when_dead(transport, self.limits.send_seconds)
        if len(self.connections) > self.limits.connections:
            transport.write(_full())
            transport.close()
            return
        self.late = self.loop.call_later(self.limits.head_seconds, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.IDLE:  # a head has begun, and is not whole
            self.late = self.late or self.loop.call_later(self.limits.head_seconds, self.transport.close)
        elif state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete:
            self.late = self.late or self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self._in_time()

    def _in_time(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stuck = self.loop.call_later(self.limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.stuck is not None:
            self.stuck.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        if self.stuck is not None:
            self.stuck.cancel()
        super().connection_lost(exc)


def _end_when_dead(transport: asyncio.Transport, seconds: float) -> None:
    """Have the system end a connection whose other end is gone or takes nothing, also when all is written."""
    connected = transport.get_extra_info("socket")
    if connected is None:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))


def _full() -> bytes:
    """An answer to a connection beyond the number that may be open."""
    body = json.dumps(Problem("busy", "Too many connections are open.").to_json()).encode()
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
    except OSError as error:
        raise InputError(
            f"{listen.host}:{listen.port}: cannot listen there: {error.strerror}; choose another --host or --port"
        ) from None
    return listener


def server(app: ASGIApp, listen: Listen, limits: Limits) -> uvicorn.Server:
    """A server that is run with `run(sockets=[bind(listen)])`."""
    logger = logging.getLogger("uvicorn.error")
    logger.setLevel(logging.ERROR)  # requests that are no HTTP are not worth a line each
    logger.addFilter(_is_news)
    protocol = cast("type[asyncio.Protocol]", functools.partial(TimedProtocol, limits=limits))
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="websockets-sansio",
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
    )


def _is_news(record: logging.LogRecord) -> bool:
    """uvicorn takes an upgrade that was refused with an answer of its own for one that was forgotten."""
    return record.msg != "ASGI callable returned without completing handshake."


def run(app: ASGIApp, listen: Listen, limits: Limits) -> None:
    """Serve until SIGINT or SIGTERM; open WebSockets are then closed with code 1012, answers on their way sent."""
    listener = bind(listen)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("serving on %s://%s:%d; stop with Ctrl-C", "https" if listen.certificate else "http", shown, port)
    try:
        server(app, listen, limits).run(sockets=[listener])
    finally:
        listener.close()
        log.info("stopped")
