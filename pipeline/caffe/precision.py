"""The precision that a net trains in: bfloat16 where the processor or GPU has units for it and is faster with them."""

import time

import torch
import torch.nn.functional as F

AUTO = "auto"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # in torch.cpu.get_capabilities, x86-64 and ARM
SECONDS = 0.3  # that a measurement takes, or two steps of each precision where those take longer
# Of the convolution that is measured: images, channels in and out, side. The middle of a net for faces of 48x48.
IMAGES, CHANNELS, SIDE = 32, 64, 24


def has_bfloat16_units(device: str) -> bool:
    """Whether a torch device multiplies bfloat16 by itself, without conversion to float32."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere's tensor cores were the first
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in CPU_UNITS)


def bfloat16_speed(device: str) -> float:
    """How many times as fast as float32 bfloat16 is here: forward and backward of a 3x3 convolution with ReLU.

    The least time of each counts, of steps taken in turns, so that what else the machine does weighs little. One thread
    computes: several would wait for one another where other processes take their cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured_speed(device)
    finally:
        torch.set_num_threads(threads)


def _measured_speed(device: str) -> float:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, memory_format=torch.channels_last)

    images = drawn(IMAGES, CHANNELS, SIDE, SIDE).requires_grad_()
    weights = drawn(CHANNELS, CHANNELS, 3, 3).requires_grad_()

    def step(precision: torch.dtype) -> float:
        images.grad = weights.grad = None
        start = time.perf_counter()
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            loss = F.relu(F.conv2d(images, weights, padding=1)).sum()
        loss.backward()
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        return time.perf_counter() - start

    start = time.perf_counter()
    for precision in PRECISIONS.values():
        step(precision)  # kernels are made in the first
    least = dict.fromkeys(PRECISIONS, float("inf"))
    rounds = 0
    while rounds < 2 or time.perf_counter() - start < SECONDS:
        for name, precision in PRECISIONS.items():
            least[name] = min(least[name], step(precision))
        rounds += 1
    return least["float32"] / least["bfloat16"]


def faster_precision(device: str) -> tuple[str, str]:
    """The precision that `auto` means on a torch device, and the reason, as the end of a sentence."""
    if not has_bfloat16_units(device):
        return "float32", "there are no units for bfloat16 here"
    speed = bfloat16_speed(device)
    return "bfloat16" if speed > 1 else "float32", f"bfloat16 is {speed:.1f} times as fast as float32 here"
