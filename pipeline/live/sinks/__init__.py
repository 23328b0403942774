"""Where readings go, each a context manager that is written to: files, pictures, a video, a window."""

from pipeline.live.sinks.images import AnnotatedImages
from pipeline.live.sinks.sink import Sink
from pipeline.live.sinks.tables import Csv, JsonLines
from pipeline.live.sinks.video import AnnotatedVideo
from pipeline.live.sinks.window import DisplayError, Window, display_fault

__all__ = ["AnnotatedImages", "AnnotatedVideo", "Csv", "DisplayError", "JsonLines", "Sink", "Window", "display_fault"]
