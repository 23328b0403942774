"""Figures for Prometheus: counts and times, and nothing that tells who asked or what was seen."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ServerMetrics:
    def __init__(self, queue: Callable[[], int]) -> None:
        """queue: tells how many images are being read or wait."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "expressions_requests", "HTTP requests answered", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "expressions_request_seconds",
            "From a request's head to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.problems = Counter("expressions_problems", "Problems told to clients", ["code"], registry=self.registry)
        self.images = Counter("expressions_images", "Images and frames read", ["way"], registry=self.registry)
        self.faces = Counter("expressions_faces", "Faces read", ["way"], registry=self.registry)
        self.read_seconds = Histogram(
            "expressions_read_seconds",
            "Decoding and reading one image or frame",
            ["way"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.dropped = Counter(
            "expressions_frames_dropped",
            "Frames that a newer one replaced before they were read",
            registry=self.registry,
        )
        self.sessions = Gauge("expressions_sessions", "WebSocket sessions open", registry=self.registry)
        Gauge("expressions_queue", "Images being read or waiting", registry=self.registry).set_function(queue)

    def text(self) -> bytes:
        return generate_latest(self.registry)
