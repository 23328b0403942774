"""Time and peak memory of whole processes, from their start to their end."""

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    seconds: float
    cpu_seconds: float
    peak_mib: float
    samples: list[tuple[float, float]]  # seconds since the start, and MiB that were resident then

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s ({self.cpu_seconds:.2f} s of processor), peak memory {self.peak_mib:.0f} MiB"


def run(command: Sequence[str | Path], cwd: Path | None = None, sample_seconds: float | None = None) -> Usage:
    """Run a command to its end.

    sample_seconds: how often the memory is looked up on the way, which works on Linux. Raises RuntimeError with what
    the command said when it fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    samples: list[tuple[float, float]] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(sample_seconds):
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            samples.append((time.perf_counter() - start, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))

    sampler = threading.Thread(target=sample)
    if sample_seconds:
        sampler.start()
    said = process.stderr.read()
    seconds = time.perf_counter() - start
    ended.set()
    if sample_seconds:
        sampler.join()  # before wait4, which gives the process's number back
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: status {process.returncode}\n{said}")
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, samples)
