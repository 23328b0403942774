"""A WebSocket on which frames come and readings go: one moving picture, of which always the newest frame is read."""

import asyncio
import json
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from pipeline.base.rate_limit import RateLimit
from pipeline.media.frames import Frame
from pipeline.readings import Reading
from pipeline.server.problems import Problem
from pipeline.server.service import Service, decode_upload

# Close codes: RFC 6455's, and of its private range those that end in HTTP's status.
NOT_UNDERSTOOD, NO_TOKEN, IDLE, TOO_OFTEN, BUSY = 4400, 4401, 4408, 4429, 4503
MAX_TEXT = 4096  # characters of a text message


class Closed(Exception):  # noqa: N818 - an end, not an error
    """Ends the session with a code and a reason of at most 123 bytes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class LiveSession:
    """One connection. Frames are numbered from 0 as they arrive; a newer one replaces one that still waits."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self.socket = socket
        self.service = service
        self.limits = service.limits
        self.metrics = service.metrics
        self.session = service.reader.session()
        self.newest: tuple[int, float, bytes] | None = None  # number, seconds, JPEG
        self.arrived = asyncio.Event()
        self.frames = 0
        self.dropped = 0
        self.start = time.monotonic()
        self.rate = RateLimit(self.limits.frame_rate, max(1, int(self.limits.frame_rate)))

    async def run(self) -> None:
        """Serve the accepted socket until it closes."""
        with self.metrics.sessions.track_inprogress():
            try:
                await self._greet()
                await self._serve()
            except Closed as closed:
                await self._close(closed)
            except (WebSocketDisconnect, TimeoutError):
                pass  # gone, or no longer taking what it is sent; the transport is closed either way

    async def _greet(self) -> None:
        access, model = self.service.access, self.service.moving_model
        if access.token is not None:
            try:
                access.check_token(self.socket)
            except Problem:
                # Browsers send no such header with a WebSocket: the token is its first message.
                if not access.allows(self._token(await self._next(self.limits.head_seconds))):
                    raise Closed(NO_TOKEN, "the token is missing or is not the server's") from None
        await self._send({"type": "ready", "model": model.to_json(), "labels": model.labels})

    async def _serve(self) -> None:
        tasks = [asyncio.create_task(self._take()), asyncio.create_task(self._answer())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _next(self, seconds: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                message = await self.socket.receive()
        except TimeoutError:
            raise Closed(IDLE, f"nothing came for {seconds:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        if self.rate.take(""):
            raise Closed(TOO_OFTEN, f"more than {self.limits.frame_rate:g} messages a second")
        return dict(message)

    def _token(self, message: dict[str, Any]) -> str:
        """The one text message there is: {"token": "..."}."""
        try:
            options = json.loads(message["text"]) if len(message.get("text") or "") <= MAX_TEXT else None
        except (KeyError, TypeError, ValueError, RecursionError):
            options = None
        if not isinstance(options, dict) or options.keys() != {"token"} or not isinstance(options["token"], str):
            raise Closed(NOT_UNDERSTOOD, 'frames are binary messages, and the token is {"token": "..."} before them')
        return str(options["token"])

    async def _take(self) -> None:
        while True:
            message = await self._next(self.limits.idle_seconds)
            data = message.get("bytes")
            if data is None:
                self._token(message)  # of a client that does not know whether one is needed
                continue
            if self.newest is not None:
                self.dropped += 1
                self.metrics.dropped.inc()
            self.newest = (self.frames, time.monotonic() - self.start, data)
            self.frames += 1
            self.arrived.set()

    async def _answer(self) -> None:
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            assert self.newest is not None
            (number, seconds, data), self.newest = self.newest, None
            counts = {"frame": number, "dropped": self.dropped}
            start = time.perf_counter()
            try:
                reading = await self.service.workers.run(self._read, number, seconds, data, expected=True)
            except Problem as problem:
                self.metrics.problems.labels(problem.code).inc()
                await self._send({"type": "problem", **counts, "problem": problem.to_json()})
                continue
            took = time.perf_counter() - start
            self.metrics.images.labels("live").inc()
            self.metrics.faces.labels("live").inc(len(reading.faces))
            self.metrics.read_seconds.labels("live").observe(took)
            answer = {"type": "reading", **counts, "milliseconds": round(1000 * took, 1)}
            await self._send({**answer, "reading": {**reading.to_json(), "more": reading.more}})

    def _read(self, number: int, seconds: float, data: bytes) -> Reading:
        """In a worker's thread."""
        image = decode_upload(data, f"frame {number}", self.service.frame_bounds).pixels
        return self.session.read(Frame("live", image, number, seconds))

    async def _send(self, message: dict[str, Any]) -> None:
        async with asyncio.timeout(self.limits.send_seconds):
            await self.socket.send_text(json.dumps(message))

    async def _close(self, closed: Closed) -> None:
        try:
            async with asyncio.timeout(self.limits.send_seconds):
                await self.socket.close(closed.code, closed.reason)
        except (RuntimeError, TimeoutError, WebSocketDisconnect):
            pass  # the client was quicker
