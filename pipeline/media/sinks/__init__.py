"""Where readings go, each a context manager that is written to: files, pictures, a video, a window."""

from pipeline.media.sinks.images import AnnotatedImages
from pipeline.media.sinks.sink import Sink
from pipeline.media.sinks.tables import Csv, JsonLines, TextSink
from pipeline.media.sinks.video import AnnotatedVideo
from pipeline.media.sinks.window import DisplayError, Window, display_fault

__all__ = [
    "AnnotatedImages",
    "AnnotatedVideo",
    "Csv",
    "DisplayError",
    "JsonLines",
    "Sink",
    "TextSink",
    "Window",
    "display_fault",
]
