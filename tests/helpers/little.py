"""What bad input may cost: a second of the processor, and little more memory than its file has bytes."""

import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 1.0
BYTES = 64 << 20


@contextmanager
def little(more_bytes: int = BYTES, seconds: float = SECONDS) -> Iterator[None]:
    """Have allocations beyond `more_bytes` fail, with no InputError; fail where the block takes long."""
    status = Path("/proc/self/status")
    found = re.search(r"VmData:\s*(\d+) kB", status.read_text()) if status.exists() else None
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if found:
        resource.setrlimit(resource.RLIMIT_DATA, (int(found[1]) * 1024 + more_bytes, before[1]))
    started = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
        assert time.process_time() - started < seconds
