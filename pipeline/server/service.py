"""What the routes share: the reader behind its limits, from an upload to a reading."""

import time

import numpy as np
from starlette.requests import Request

from pipeline.base.console import log
from pipeline.base.errors import SourceError, TooManyPixelsError
from pipeline.base.image_files import decode_image
from pipeline.media.fetch import FetchError, fetch
from pipeline.media.frames import Frame
from pipeline.readings import Reading
from pipeline.server.guard import Access
from pipeline.server.limits import Limits, Memory, RateLimit, Workers, client_of
from pipeline.server.metrics import Metrics
from pipeline.server.problems import Problem
from pipeline.server.reader import Model, Reader
from pipeline.server.uploads import Upload, content_type, parse, read_body

FETCH_SECONDS = 10.0
FETCHERS = 4  # threads that wait for other servers, apart from those that read images


def decode(data: bytes, name: str, pixels: int) -> np.ndarray:
    """An image's pixels, (H, W, 3) uint8 RGB. Raises Problem when it is none, or has more of them than `pixels`."""
    try:
        # What a visitor sends says nothing into the log.
        return decode_image(data, name, max_pixels=pixels, remark=log.debug)
    except TooManyPixelsError as error:
        raise Problem("too_many_pixels", str(error)) from None
    except SourceError as error:
        raise Problem("unreadable_image", str(error)) from None


class Service:
    """reader: reads the images; access: who may ask; urls: whether addresses of images are fetched.

    model: what the reader reads images with; moving_model: what its sessions read with.
    """

    def __init__(
        self, reader: Reader, model: Model, access: Access, limits: Limits, *, urls: bool, moving_model: Model
    ) -> None:
        self.reader = reader
        self.model = model
        self.moving_model = moving_model
        self.access = access
        self.limits = limits
        self.urls = urls
        self.workers = Workers(limits.workers, limits.waiting)
        self.fetchers = Workers(FETCHERS, limits.waiting)
        self.memory = Memory(limits.held_bytes)
        self.rate = RateLimit(limits.rate, limits.burst)
        self.metrics = Metrics(lambda: self.workers.pending)

    def close(self) -> None:
        self.workers.close()
        self.fetchers.close()

    def admit(self, request: Request) -> None:
        """Raises Problem for a client that asks too often, guesses included, or without the token."""
        self.rate.charge(client_of(request.client.host if request.client else None))
        self.access.check_token(request)

    async def uploads(self, request: Request, *, one: bool) -> list[Upload]:
        """The images in the request. Raises Problem."""
        kind = content_type(request)
        if self.workers.full:  # before the body is taken
            raise Problem("busy", "Too many images wait to be read.", {"Retry-After": "2"})
        with self.memory.body() as hold:
            body = await read_body(request, self.limits, hold)
            found = await self.workers.run(lambda: parse(kind, body, self.limits.images, one=one))
        if len(found) > 1:
            self.rate.charge(client_of(request.client.host if request.client else None), len(found) - 1)
        return found

    async def read(self, upload: Upload, *, expected: bool = False) -> tuple[Frame, Reading]:
        """Raises Problem. expected: of a batch that was let in already."""
        if upload.url is not None:
            upload = Upload(upload.name, await self.fetchers.run(self._fetch, upload.url))
        return await self.workers.run(self._read, upload, expected=expected)

    def _fetch(self, url: str) -> bytes:
        """In a fetcher's thread."""
        if not self.urls:
            raise Problem("urls_off", "An address was sent instead of an image.")
        try:
            return fetch(url, private=False, max_bytes=self.limits.body_bytes, timeout=FETCH_SECONDS)
        except FetchError as error:
            raise Problem("not_fetched", str(error)) from None

    def _read(self, upload: Upload) -> tuple[Frame, Reading]:
        """In a worker's thread."""
        start = time.perf_counter()
        frame = Frame(upload.name, decode(upload.data, upload.name, self.limits.pixels))
        (reading,) = self.reader.read([frame])
        self.metrics.images.labels("request").inc()
        self.metrics.faces.labels("request").inc(len(reading.faces))
        self.metrics.read_seconds.labels("request").observe(time.perf_counter() - start)
        return frame, reading
