"""Figures for Prometheus: counts and times, and nothing that tells who asked or what was seen.

Several processes keep them in files of a common folder, prometheus_client's multiprocess mode, and each tells the sum.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported
MEMORY = Path("/dev/shm")  # where Linux keeps files in memory; a container whose disk is read-only has it, too


@contextmanager
def common_figures() -> Iterator[Path]:
    """Give the folder of the figures, which processes that are started meanwhile have in common."""
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="expressions-", dir=memory, ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[FOLDER]


class ServerMetrics:
    """The figures of the server. Those of the live* modes count living processes only."""

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        self.requests = Counter(
            "expressions_requests", "HTTP requests answered", ["route", "method", "status"], registry=self._own
        )
        self.seconds = Histogram(
            "expressions_request_seconds",
            "From a request's head to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=self._own,
        )
        self.problems = Counter("expressions_problems", "Problems told to clients", ["code"], registry=self._own)
        self.images = Counter("expressions_images", "Images and frames read", ["way"], registry=self._own)
        self.faces = Counter("expressions_faces", "Faces read", ["way"], registry=self._own)
        self.read_seconds = Histogram(
            "expressions_read_seconds",
            "Decoding and reading one image or frame",
            ["way"],
            buckets=SECONDS,
            registry=self._own,
        )
        self.dropped = Counter(
            "expressions_frames_dropped",
            "Frames that a newer one replaced before they were read",
            registry=self._own,
        )
        self.sessions = self._gauge("expressions_sessions", "WebSocket sessions open")
        self.queue = self._gauge("expressions_queue", "Images being read or waiting")
        self._gauge("expressions_processes", "Processes that serve").set(1)

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(name, description, registry=self._own, multiprocess_mode="livesum")

    def text(self) -> bytes:
        """The figures of all processes."""
        if FOLDER not in os.environ:
            return generate_latest(self._own)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)

    def processes(self) -> int:
        """How many processes serve."""
        folder = os.environ.get(FOLDER)
        # Each has one file of its gauges. Anyone may ask, so no figures are added up for it.
        return len(list(Path(folder).glob("gauge_livesum_*.db"))) if folder else 1
