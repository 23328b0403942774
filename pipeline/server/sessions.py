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
NOT_UNDERSTOOD, NO_TOKEN, EXPLAIN_OFF, IDLE, TOO_OFTEN, BUSY = 4400, 4401, 4403, 4408, 4429, 4503
MAX_TEXT = 4096  # characters of a text message


class Closed(Exception):  # noqa: N818 - an end, not an error
    """Ends the session with a code and a reason of at most 123 bytes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class LiveSession:
    """One connection. Frames are numbered from 0 as they arrive; a newer one replaces one that still waits.

    A text message states an option: the token, or whether the frames after it are read with heat maps.
    """

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self.socket = socket
        self.service = service
        self.limits = service.limits
        self.metrics = service.metrics
        self.session = service.reader.session()
        self.explain = False
        self.newest: tuple[int, float, bytes, bool] | None = None  # number, seconds, JPEG, whether to explain
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
                if not access.allows(self._option(await self._next(self.limits.head_seconds)).get("token", "")):
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
        self._count()
        return dict(message)

    def _count(self) -> None:
        if self.rate.take(""):
            raise Closed(TOO_OFTEN, f"more than {self.limits.frame_rate:g} messages and heat maps a second")

    def _option(self, message: dict[str, Any]) -> dict[str, Any]:
        """What a text message says: {"token": "..."} or {"explain": true or false}."""
        option: Any
        try:
            option = json.loads(message["text"]) if len(message.get("text") or "") <= MAX_TEXT else None
        except (KeyError, TypeError, ValueError, RecursionError):
            option = None
        match option:
            case {"token": str()} | {"explain": bool()} if len(option) == 1:
                return dict(option)
        raise Closed(NOT_UNDERSTOOD, 'frames are binary messages; texts are {"token": "..."} or {"explain": true}')

    async def _take(self) -> None:
        while True:
            message = await self._next(self.limits.idle_seconds)
            data = message.get("bytes")
            if data is None:
                # A token comes from a client that does not know whether one is needed.
                self.explain = self._option(message).get("explain", self.explain)
                if self.explain and self.service.explaining is None:
                    raise Closed(EXPLAIN_OFF, "no heat maps here; ask without, or start the server with --explain")
                continue
            if self.explain:
                self._count()  # the net runs once more for a heat map
            if self.newest is not None:
                self.dropped += 1
                self.metrics.dropped.inc()
            self.newest = (self.frames, time.monotonic() - self.start, data, self.explain)
            self.frames += 1
            self.arrived.set()

    async def _answer(self) -> None:
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            assert self.newest is not None
            frame, self.newest = self.newest, None
            counts = {"frame": frame[0], "dropped": self.dropped}
            start = time.perf_counter()
            try:
                reading = await self.service.workers.run(self._read, *frame, expected=True)
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

    def _read(self, number: int, seconds: float, data: bytes, explain: bool) -> Reading:
        """In a worker's thread."""
        image = decode_upload(data, f"frame {number}", self.service.frame_bounds).pixels
        return self.session.read(Frame("live", image, number, seconds), explain=explain)

    async def _send(self, message: dict[str, Any]) -> None:
        async with asyncio.timeout(self.limits.send_seconds):
            await self.socket.send_text(json.dumps(message))

    async def _close(self, closed: Closed) -> None:
        try:
            async with asyncio.timeout(self.limits.send_seconds):
                await self.socket.close(closed.code, closed.reason)
        except (RuntimeError, TimeoutError, WebSocketDisconnect):
            pass  # the client was quicker
