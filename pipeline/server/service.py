"""What the routes share: the reader behind its limits, from an upload to a reading."""

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from pipeline.base.console import log
from pipeline.base.errors import SourceError, TooManyPixelsError, TooNarrowError
from pipeline.base.image_files import ImageBounds, ScaledImage, decode_scaled
from pipeline.base.rate_limit import RateLimit
from pipeline.media.fetch import FetchError, fetch
from pipeline.media.frames import Frame
from pipeline.media.reader import Reader
from pipeline.readings import Reading
from pipeline.server.guard import Access
from pipeline.server.limits import BodyMemory, Limits, Workers, asker
from pipeline.server.metrics import ServerMetrics
from pipeline.server.model import Model
from pipeline.server.problems import Problem
from pipeline.server.uploads import Upload, content_type, parse_upload, read_body

FETCH_SECONDS = 10.0
MEGAPIXEL = 1_000_000
FETCHERS = 4  # threads that wait for other servers, apart from those that read images


class _TooOftenError(SourceError):
    """An image that its client may not have read now. problem: the answer to the client."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(frozen=True)
class ImageReading:
    """What was read in an image. frame: as it was searched; reading: in pixels of the image as it was sent."""

    frame: Frame
    reading: Reading

    def to_json(self) -> dict[str, Any]:
        height, width = self.frame.image.shape[:2]
        return {**self.reading.to_json(), "searched": {"width": width, "height": height}, "more": self.reading.more}


def decode_upload(
    data: bytes, name: str, bounds: ImageBounds, look: Callable[[int, int], None] | None = None
) -> ScaledImage:
    """An image's pixels within the bounds. look: called with its size before it is unpacked. Raises Problem."""
    try:
        # What a visitor sends says nothing into the log.
        return decode_scaled(data, name, bounds, remark=log.debug, look=look)
    except _TooOftenError as error:
        raise error.problem from None
    except TooManyPixelsError as error:
        raise Problem("too_many_pixels", str(error)) from None
    except TooNarrowError as error:
        raise Problem("too_narrow", str(error)) from None
    except SourceError as error:
        raise Problem("unreadable_image", str(error)) from None


class Service:
    """reader: reads the images; access: who may ask; urls: whether addresses of images are fetched.

    model: what the reader reads images with; moving_model: what its sessions read with. explaining: reads images where
    heat maps are asked for, None where they may not be, of frames neither.
    """

    def __init__(
        self,
        reader: Reader,
        model: Model,
        access: Access,
        limits: Limits,
        *,
        urls: bool,
        moving_model: Model,
        explaining: Reader | None,
    ) -> None:
        self.reader = reader
        self.explaining = explaining
        self.model = model
        self.moving_model = moving_model
        self.access = access
        self.limits = limits
        self.urls = urls
        self.metrics = ServerMetrics()
        self.workers = Workers(limits.workers, limits.waiting, self.metrics.queue.set)
        self.fetchers = Workers(FETCHERS, limits.waiting)
        self.memory = BodyMemory(max(limits.held_bytes, limits.body_bytes), max(limits.client_bytes, limits.body_bytes))
        self.sessions: Counter[str] = Counter()  # open, by client
        self.image_bounds = ImageBounds(limits.pixels, limits.side, limits.ratio, limits.searched_pixels)
        self.frame_bounds = ImageBounds(limits.frame_pixels, limits.side, limits.ratio)
        self.rate = RateLimit(limits.rate, limits.burst)

    def close(self) -> None:
        self.workers.close()
        self.fetchers.close()

    def charge(self, client: str, images: int = 1) -> None:
        """Take from what the client may have. Raises Problem `too_often` with a Retry-After header."""
        if wait := self.rate.take(client, images):
            raise Problem(
                "too_often",
                f"Each client may ask for {self.rate.rate:g} images of a megapixel a second, and {self.rate.burst} at "
                "once; larger ones count as their megapixels.",
                {"Retry-After": str(math.ceil(wait))},
            )

    def admit(self, request: Request) -> None:
        """Raises Problem for a client that asks too often, guesses included, or without the token."""
        self.charge(asker(request))
        self.access.check_token(request)

    def reader_of(self, explain: bool) -> Reader:
        """Who reads images, with heat maps or without. Raises Problem."""
        reader = self.explaining if explain else self.reader
        if reader is None:
            raise Problem("explain_off", "A heat map was asked for.")
        return reader

    @asynccontextmanager
    async def uploads(self, request: Request, *, one: bool, explain: bool) -> AsyncIterator[list[Upload]]:
        """Give the images in the request, whose body counts as held in memory until they are read.

        explain: its client pays for a heat map of each, too. Raises Problem.
        """
        kind = content_type(request)
        if self.workers.full:  # before the body is taken
            raise Problem("busy", "Too many images wait to be read.", {"Retry-After": "2"})
        client = asker(request)
        with self.memory.body(client) as hold:
            found = await self._parse(kind, await read_body(request, self.limits, hold), one)
            cost = 2 * len(found) if explain else len(found)  # the net runs once more for a heat map
            if cost > 1:
                self.charge(client, cost - 1)
            yield found

    async def _parse(self, kind: str, body: bytes, one: bool) -> list[Upload]:
        return await self.workers.run(lambda: parse_upload(kind, body, self.limits.images, one=one))

    async def read(self, upload: Upload, client: str, reader: Reader, *, expected: bool = False) -> ImageReading:
        """Raises Problem. client: who pays for its pixels. expected: of a batch that was let in already."""
        if upload.url is not None:
            upload = Upload(upload.name, await self.fetchers.run(self._fetch, upload.url))
        return await self.workers.run(self._read, upload, client, reader, expected=expected)

    def _fetch(self, url: str) -> bytes:
        """In a fetcher's thread."""
        if not self.urls:
            raise Problem("urls_off", "An address was sent instead of an image.")
        try:
            return fetch(url, private=False, max_bytes=self.limits.body_bytes, timeout=FETCH_SECONDS)
        except FetchError as error:
            raise Problem("not_fetched", str(error)) from None

    def _read(self, upload: Upload, client: str, reader: Reader) -> ImageReading:
        """In a worker's thread."""
        start = time.perf_counter()
        paid = 1  # when the request, or its batch, was let in

        def pay(width: int, height: int) -> None:
            """For its megapixels, once, before the work is done."""
            nonlocal paid
            cost = math.ceil(width * height / MEGAPIXEL)
            if cost > paid:
                try:
                    self.charge(client, cost - paid)
                except Problem as problem:
                    raise _TooOftenError(problem) from None
                paid = cost

        image = decode_upload(upload.data, upload.name, self.image_bounds, pay)
        frame = Frame(upload.name, image.pixels)
        (reading,) = reader.read([frame])
        self.metrics.images.labels("request").inc()
        self.metrics.faces.labels("request").inc(len(reading.faces))
        self.metrics.read_seconds.labels("request").observe(time.perf_counter() - start)
        return ImageReading(frame, reading.resized(image.width, image.height))
