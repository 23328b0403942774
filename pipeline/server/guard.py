"""What stands before every route: the server's name, the asker's origin and token, and the headers of every answer."""

import hmac
import ipaddress
import re
import time
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.base.console import log
from pipeline.server.metrics import ServerMetrics
from pipeline.server.problems import Problem

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Scripts, styles and pictures are the server's own; pictures and videos that the visitor chose are blobs.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Access:
    """Who may ask. token: what a client must send, None where it need not.

    names: the host names that the server answers to; None for any, which only a token makes safe: a page elsewhere
    could have its own name resolve to this machine (DNS rebinding).
    """

    token: str | None = None
    names: Collection[str] | None = LOOPBACK

    def check_host(self, host: str) -> None:
        if self.names is not None and host_name(host) not in self.names:
            raise Problem("other_host", "The Host header names another server.")

    def check_origin(self, headers: Headers) -> None:
        """A browser tells what page asks; it must be this server's, as a page elsewhere could use the visitor's."""
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
            raise Problem("other_origin", "The Origin header names another server's page.")

    def allows(self, token: str) -> bool:
        """Compared in a time that does not depend on where they differ."""
        return self.token is None or hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self.token.encode())

    def check_token(self, connection: HTTPConnection) -> None:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if self.token is not None and not (scheme.lower() == "bearer" and self.allows(token.strip())):
            raise Problem("no_token", "The token is missing or is not the server's.", {"WWW-Authenticate": "Bearer"})


def host_name(host: str) -> str:
    """The name or address in a Host header, without its port, in lower case; "" for what is neither."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([\w.-]+))(?::\d{1,5})?", host, re.ASCII)
    if match is None:
        return ""
    try:
        return str(ipaddress.ip_address(match[1] or match[2]))
    except ValueError:
        return (match[2] or "").lower().rstrip(".")


def bare_name(name: str) -> str:
    """A name or address without a port as host_name() gives that of a Host header; "" for what is neither."""
    return host_name(f"{name}:0") or host_name(f"[{name}]:0")


class Guard:
    """Wraps the whole application: refuses, adds headers, counts, and turns what is not caught into a problem."""

    def __init__(self, app: ASGIApp, access: Access, metrics: ServerMetrics) -> None:
        self.app = app
        self.access = access
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self.access.check_host(headers.get("host", ""))
            if scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD"):
                self.access.check_origin(headers)
        except Problem as problem:
            app: ASGIApp = self._refusal(problem, scope)
        else:
            app = self.app
        await (self._websocket if scope["type"] == "websocket" else self._http)(app, scope, receive, send)

    def _refusal(self, problem: Problem, scope: Scope) -> ASGIApp:
        self.metrics.problems.labels(problem.code).inc()
        response = problem.response()

        async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                # An answer instead of the upgrade (ASGI's "websocket.http.response" extension).
                start = {"status": response.status_code, "headers": response.raw_headers}
                await send({"type": "websocket.http.response.start", **start})
                await send({"type": "websocket.http.response.body", "body": bytes(response.body)})
            else:
                await response(scope, receive, send)

        return refuse

    async def _websocket(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            self._tell(error)
            await send({"type": "websocket.close", "code": 1011, "reason": "the server failed"})

    async def _http(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answer.setdefault(name, value)
                answer.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await app(scope, receive, send_with_headers)
        except Exception as error:
            self._tell(error)
            if not status:
                await self._refusal(Problem("our_fault", "Something went wrong while this was read."), scope)(
                    scope, receive, send_with_headers
                )
        finally:
            route = getattr(scope.get("route"), "path", "page" if "endpoint" in scope else "other")
            method = scope["method"] if scope["method"] in METHODS else "other"
            if status:  # else the client was gone before the answer
                self.metrics.requests.labels(route, method, str(status)).inc()
                self.metrics.seconds.labels(route).observe(time.perf_counter() - start)

    def _tell(self, error: Exception) -> None:
        """Where the fault lies, without the error's own words, which could name a visitor's file."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
        log.error("error: %s at %s; the client was told that the server failed", type(error).__name__, place)
