"""How much memory a net's blobs may take: asked before any is made."""

import ctypes
import math
import os
import platform
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import InputError

if TYPE_CHECKING:
    import torch

BYTES_PER_VALUE = 4

# Of the control group that a container's processes are in, by its two versions.
_GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class MemoryBudgetError(InputError):
    """Blobs that need more memory than there is."""


class MemoryBudget:
    """The memory that a net's blobs may take together: all of it.

    Counted are weights, and the tops at the batch of the prototxt, which stay until the next batch: the least that any
    run needs, so that no net is refused that would have run. Gradients, a solver's history and what kernels need for
    themselves come on top.
    """

    def __init__(self, device: "torch.device") -> None:
        self.limit = memory_of(device)
        self.taken = 0

    def take(self, shape: Sequence[int]) -> None:
        """Count a blob in. Raises MemoryBudgetError where there is no room for it."""
        self.taken += BYTES_PER_VALUE * math.prod(shape)
        if self.taken > self.limit:
            raise MemoryBudgetError(
                f"with it the net's blobs need {self.taken / 2**30:.1f} GiB where there are "
                f"{self.limit / 2**30:.1f} GiB of memory; make the batch or the layer smaller"
            )

    def give_back(self, shape: Sequence[int]) -> None:
        """Count out a blob that shares the memory of another one."""
        self.taken -= BYTES_PER_VALUE * math.prod(shape)


def memory_of(device: "torch.device") -> int:
    """How many bytes of memory a torch device has; of the CPU's those that this process may use."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return min(_limits())


def _limits() -> Iterator[int]:
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        yield address_space
    for path in _GROUP_LIMITS:
        if path.exists() and (text := path.read_text().strip()).isdecimal():  # or "max"
            yield int(text)


def keep_freed_memory() -> None:
    """Have glibc keep freed blobs for the next iteration: mapping them anew each time costs a third of the speed."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
