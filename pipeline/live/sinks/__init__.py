"""Where readings go, each a context manager that is written to: files, pictures, a video, a window."""

from pipeline.live.sinks.images import AnnotatedImages
from pipeline.live.sinks.sink import Sink
from pipeline.live.sinks.tables import Csv, JsonLines
from pipeline.live.sinks.video import AnnotatedVideo

__all__ = ["AnnotatedImages", "AnnotatedVideo", "Csv", "JsonLines", "Sink"]
