"""The answers' JSON, as /openapi.json tells it."""

from typing import Literal

from pydantic import BaseModel, Field


class ExplanationAnswer(BaseModel):
    corners: list[tuple[float, float]] = Field(description="x and y in pixels of what the heat covers, four of them")
    heat: list[list[float]] = Field(description="What speaks for the label: rows of 0 to 1")


class FaceAnswer(BaseModel):
    track: int | None = Field(description="The face's number across frames, from 1; null in a lone image")
    box: tuple[float, float, float, float] = Field(description="Left, top, right, bottom in pixels")
    score: float | None = Field(description="The detector's, 0 to 1; null where nothing was looked for")
    landmarks: dict[str, tuple[float, float]] = Field(description="x and y in pixels by name; may be empty")
    probabilities: dict[str, float] = Field(description="By expression; they add up to 1")
    label: str = Field(description="The most probable expression")
    uncertain: bool = Field(description="Whether even the most probable one is not probable enough to go by")
    status: Literal["found", "given", "whole"] = Field(description="whole: no face found, the image was read as one")
    conditions: list[str] = Field(description="Of tiny, turned and edge, those that make the reading worth less")
    explanation: ExplanationAnswer | None = Field(
        default=None, description="Where it was asked for, or the server runs with --explain"
    )


class ReadingAnswer(BaseModel):
    file: str = Field(description="The file's name as it was sent, without folders")
    frame: int = Field(description="The frame's number from 0; 0 for an image")
    time: float | None = Field(description="Seconds since the WebSocket was opened; null for an image")
    width: int = Field(description="Of the image as it was sent, as boxes are")
    height: int
    faces: list[FaceAnswer] = Field(description="From the largest to the smallest")
    more: int = Field(description="Smaller faces that were seen and not read, as there is a limit to them")


class Size(BaseModel):
    width: int
    height: int


class ImageAnswer(ReadingAnswer):
    searched: Size = Field(description="Size at which faces were looked for; large images are scaled down to it")


class ModelName(BaseModel):
    name: str
    version: str


class ProblemAnswer(BaseModel):
    """RFC 9457."""

    type: str = Field(description="Where the problem is explained")
    title: str
    status: int = Field(description="The HTTP status")
    code: str = Field(description="For programs: it stays when words change")
    detail: str = Field(description="One sentence about this request")
    action: str = Field(description="What to do")


class FailedImage(BaseModel):
    file: str
    problem: ProblemAnswer


class OneAnswer(ImageAnswer):
    model: ModelName


class BatchAnswer(BaseModel):
    model: ModelName
    failed: int = Field(description="How many of the images could not be read")
    readings: list[ImageAnswer | FailedImage] = Field(description="In the order in which the images were sent")


class HealthModel(ModelName):
    sha256: str = Field(description="Of the net's file")


class HealthAnswer(BaseModel):
    live: bool
    ready: bool = Field(description="Whether the process that answers would read an image now, not refuse it")
    processes: int = Field(description="How many processes serve")
    model: HealthModel


class Expression(BaseModel):
    label: str
    colour: str = Field(description="As #RRGGBB")
    emoji: str = Field(description="Path of an SVG picture")


class LimitsAnswer(BaseModel):
    body_bytes: int
    pixels: int
    side: int
    ratio: float
    searched_pixels: int
    faces: int
    images: int
    frame_bytes: int
    frame_pixels: int


class ModelAnswer(ModelName):
    expressions: list[Expression]
    unknown: str = Field(description="Path of an SVG picture for what is uncertain")
    limits: LimitsAnswer
    token: bool = Field(description="Whether a token is needed")
    urls: bool = Field(description="Whether addresses of images are fetched")
    explain: bool = Field(description="Whether heat maps may be asked for")
