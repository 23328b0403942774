"""The routes: what is read, how the server is, and the page."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from pipeline import __version__
from pipeline.drawing.emoji import UNKNOWN, name_of
from pipeline.drawing.overlay import Overlay
from pipeline.drawing.palette import colours
from pipeline.media.frames import Frame
from pipeline.media.reader import Reader
from pipeline.readings import Reading
from pipeline.server.assets import Asset, assets
from pipeline.server.guard import Access, Guard
from pipeline.server.limits import Limits, asker
from pipeline.server.model import Model
from pipeline.server.problems import KINDS, Problem
from pipeline.server.schema import BatchAnswer, HealthAnswer, LimitsAnswer, ModelAnswer, OneAnswer, ProblemAnswer
from pipeline.server.service import Service
from pipeline.server.sessions import BUSY, TOO_OFTEN, LiveSession
from pipeline.server.uploads import FORM, JSON, RAW

PNG = "image/png"
DESCRIPTION = """\
Reads facial expressions. Pictures are read in memory and forgotten: nothing is stored.
An expression is not an emotion: see the model card.

Frames go over a WebSocket at /v1/live: each binary message is a JPEG, each text message that comes back is JSON with a
`type`: `ready`, `reading` or `problem`, the last two with the `frame`'s number from 0 and how many were `dropped`
so far. Of frames that wait the newest is read. One connection is one moving picture, whose faces keep their numbers.
Where a token is needed, the first message is `{"token": "..."}`. After `{"explain": true}` the faces of each frame have
an `explanation`, as with `?explain=true`, until `{"explain": false}`; such a frame counts as two messages in the limit.
The server closes with 4400 (not understood), 4401 (the token), 4403 (no heat maps here), 4408 (nothing came for a
while), 4429 (too often), 4503 (too many sessions), 1009 (frame too large), 1012 (stopped).
"""
BASE64 = {"type": "string", "description": "base64, or a data URL"}
NAME = {"type": "string", "description": "For the answer"}
IMAGE_ITEM = {"type": "object", "required": ["image"], "properties": {"image": BASE64, "name": NAME}}
URL_ITEM = {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}, "name": NAME}}
ITEM = {"oneOf": [BASE64, IMAGE_ITEM, URL_ITEM]}
FILE = {"type": "string", "format": "binary"}
EXPLANATION = (
    "Answer with a heat map of what spoke for each face's label; each image then counts twice in the rate limit"
)
Explain = Annotated[bool, Query(description=EXPLANATION)]


def build(
    reader: Reader,
    model: Model,
    access: Access,
    limits: Limits,
    *,
    urls: bool = False,
    moving_model: Model | None = None,
    explaining: Reader | None = None,
) -> ASGIApp:
    """The whole application. urls: whether addresses of images are fetched, from public servers only.

    model: what reads images; moving_model: what reads a WebSocket's frames, of the same labels, None for `model` too.
    explaining: reads the images whose heat maps are asked for, None where none may be, those of frames neither.
    """
    moving_model = moving_model or model
    service = Service(reader, model, access, limits, urls=urls, moving_model=moving_model, explaining=explaining)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="caffe-expressions",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,  # FastAPI's pages load their scripts from elsewhere
    )
    _tell_problems(app, service)
    _add_reading(app, service)
    _add_live(app, service)
    _add_state(app, service)
    specification = json.dumps({**app.openapi(), "x-problems": {code: vars(kind) for code, kind in KINDS.items()}})
    for route in app.routes:  # only now: the specification would tell of it as of another operation
        if isinstance(route, APIRoute) and route.methods == {"GET"}:
            route.methods = {"GET", "HEAD"}
    pages = {**assets(model.card), "/openapi.json": Asset(specification.encode(), "application/json")}
    for path, asset in pages.items():
        app.add_route(path, asset.answer, include_in_schema=False)
    return Guard(app, access, service.metrics)


def _tell_problems(app: FastAPI, service: Service) -> None:
    """Every refusal as problem JSON."""

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        service.metrics.problems.labels(error.code).inc()
        return error.response()

    async def parameter(request: Request, _: Exception) -> Response:
        return await problem(request, Problem("not_understood", "The parameter explain is neither true nor false."))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = "wrong_method" if error.status_code == 405 else "not_found"
        return await problem(request, Problem(code, f"{request.method} of this path.", error.headers))

    async def fault(request: Request, _: Exception) -> Response:
        return await problem(request, Problem("our_fault", "Something went wrong while this was read."))

    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=499)  # for the count of requests; nobody is there to receive it

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RequestValidationError, parameter)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, fault)
    app.add_exception_handler(ClientDisconnect, gone)


def _problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for /openapi.json."""
    told: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        entry = told.setdefault(KINDS[code].status, {"model": ProblemAnswer, "description": ""})
        entry["description"] += ("; " if entry["description"] else "") + f"`{code}`: {KINDS[code].title}"
    return told


def _body(json_schema: dict[str, Any], form: dict[str, Any], raw: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        FORM: {"schema": {"type": "object", "properties": form}},
        JSON: {"schema": json_schema},
    }
    if raw:
        content |= {"image/*": {"schema": FILE}, RAW: {"schema": FILE}}
    return {"requestBody": {"required": True, "content": content}}


def _add_reading(app: FastAPI, service: Service) -> None:
    async def admit(request: Request) -> None:
        service.admit(request)

    refusals = _problems(
        "not_understood",
        "no_token",
        "other_origin",
        "urls_off",
        "explain_off",
        "small_chunks",
        "too_slow",
        "too_large",
        "wrong_type",
        "unreadable_image",
        "too_many_pixels",
        "too_narrow",
        "wrong_number",
        "not_fetched",
        "too_often",
        "our_fault",
        "busy",
    )

    @app.post(
        "/v1/read",
        summary="Read one image",
        description=f"With `Accept: {PNG}` the answer is the image with the reading drawn over it.",
        responses={200: {"model": OneAnswer, "content": {PNG: {"schema": FILE}}}, **refusals},
        openapi_extra=_body(ITEM, {"image": FILE}, raw=True),
        dependencies=[Depends(admit)],
    )
    async def read(request: Request, explain: Explain = False) -> Response:
        reader = service.reader_of(explain)
        async with service.uploads(request, one=True, explain=explain) as (upload,):
            done = await service.read(upload, asker(request), reader)
        if request.headers.get("accept", "").strip().lower() == PNG:
            return Response(await service.workers.run(_drawn, done.frame, done.reading, expected=True), media_type=PNG)
        return JSONResponse({**done.to_json(), "model": service.model.to_json()})

    @app.post(
        "/v1/batch",
        summary=f"Read up to {service.limits.images} images",
        description="An image that cannot be read has a problem in its place; the others are read.",
        responses={200: {"model": BatchAnswer}, **refusals},
        openapi_extra=_body(
            {"type": "object", "required": ["images"], "properties": {"images": {"type": "array", "items": ITEM}}},
            {"images": {"type": "array", "items": FILE}},
            raw=False,
        ),
        dependencies=[Depends(admit)],
    )
    async def batch(request: Request, explain: Explain = False) -> Response:
        reader = service.reader_of(explain)
        readings: list[dict[str, Any]] = []
        failed = 0
        client = asker(request)
        async with service.uploads(request, one=False, explain=explain) as uploads:
            for upload in uploads:
                if await request.is_disconnected():
                    raise ClientDisconnect
                try:
                    done = await service.read(upload, client, reader, expected=True)
                    readings.append(done.to_json())
                except Problem as problem:
                    service.metrics.problems.labels(problem.code).inc()
                    failed += 1
                    readings.append({"file": upload.name, "problem": problem.to_json()})
        return JSONResponse({"model": service.model.to_json(), "failed": failed, "readings": readings})


def _drawn(frame: Frame, reading: Reading) -> bytes:
    """A PNG of the frame, as it was searched, with its reading drawn over it."""
    from PIL import Image

    file = io.BytesIO()
    height, width = frame.image.shape[:2]
    drawn = Overlay().draw(frame.image, reading.resized(width, height))
    Image.fromarray(drawn).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _add_live(app: FastAPI, service: Service) -> None:
    @app.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        # Refused only now: browsers do not tell a page why an upgrade failed, but they do tell a close code.
        client = asker(socket)
        if service.rate.take(client):
            await socket.close(TOO_OFTEN, "too many connections in a short time; wait a little")
            return
        sessions, limits = service.sessions, service.limits
        if sessions.total() >= limits.sessions:
            await socket.close(BUSY, f"{limits.sessions} sessions are open, which is all there may be; try again later")
            return
        if sessions[client] >= limits.client_sessions:
            await socket.close(BUSY, f"{limits.client_sessions} of your sessions are open; close one first")
            return
        sessions[client] += 1
        try:
            await LiveSession(socket, service).run()
        finally:
            sessions[client] -= 1
            if not sessions[client]:
                del sessions[client]


def _add_state(app: FastAPI, service: Service) -> None:
    model = service.model

    @app.get("/health", summary="Whether the server lives and takes images", responses={200: {"model": HealthAnswer}})
    async def health() -> Response:
        told = {**model.to_json(), "sha256": model.sha256}
        processes = service.metrics.processes()
        return JSONResponse({"live": True, "ready": not service.workers.full, "processes": processes, "model": told})

    @app.get("/v1/model", summary="The model, its expressions, the limits", responses={200: {"model": ModelAnswer}})
    async def about() -> Response:
        limits, colour = service.limits, colours(model.labels)
        return JSONResponse(
            {
                **model.to_json(),
                "expressions": [
                    {"label": label, "colour": colour[label], "emoji": f"/emoji/{name_of(label)}.svg"}
                    for label in model.labels
                ],
                "unknown": f"/emoji/{UNKNOWN}.svg",
                "limits": {name: getattr(limits, name) for name in LimitsAnswer.model_fields},
                "token": service.access.token is not None,
                "urls": service.urls,
                "explain": service.explaining is not None,
            }
        )

    async def admit(request: Request) -> None:
        service.admit(request)

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        responses={200: {"content": {"text/plain": {}}}, **_problems("no_token", "too_often")},
        dependencies=[Depends(admit)],
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
