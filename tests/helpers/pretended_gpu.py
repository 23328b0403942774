"""GPUs where there are none: the CPU computes, but tensors say that they are on a GPU, and what would mix is an error.

To torch itself such a tensor is on "meta", for its autograd needs a driver for "cuda". The values are kept beside it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

ATEN = torch.ops.aten
COPIES = {ATEN.copy_.default, ATEN._to_copy.default}  # which may read one device and write to another
OFFSET = torch.zeros(8, dtype=torch.uint8)  # which a GPU's generator has in its state, and the CPU's has not

# The products that autocast on a GPU computes in the lower precision; it would not look at what is on "meta".
CASTED = {
    *(torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
    *(F.linear, torch.prelu, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__),
}


class OnGpu(torch.Tensor):
    """A tensor on a pretended GPU. values: what it holds, on the CPU."""

    values: torch.Tensor  # type: ignore[assignment]
    gpu: torch.device
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls, values: torch.Tensor, gpu: torch.device) -> "OnGpu":
        like = torch.empty_strided(values.shape, values.stride(), dtype=values.dtype, device="meta")
        made: OnGpu = torch.Tensor._make_subclass(cls, like, False)
        made.values, made.gpu = values, gpu
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func}: {args} outside of pretended_gpus()")

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.gpu

    @property
    def data(self) -> torch.Tensor:
        made: torch.Tensor = torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]
        return made

    @data.setter
    def data(self, other: Any) -> None:
        torch.Tensor.data.__set__(self, other)  # type: ignore[attr-defined]
        self.values = other.values

    def data_ptr(self) -> int:
        return self.values.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.values.untyped_storage()

    def tolist(self) -> Any:
        return self.values.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()


class GpuGenerator(torch.Generator):
    """A generator on a pretended GPU. Its state is none of the CPU's."""

    gpu: torch.device

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.gpu

    def get_state(self) -> torch.Tensor:
        return torch.cat([super().get_state(), OFFSET])

    def set_state(self, state: torch.Tensor) -> None:  # type: ignore[override]
        if len(state) != len(self.get_state()):
            raise RuntimeError("RNG state is wrong size")
        super().set_state(state[: -len(OFFSET)])


def make_generator(device: torch.device | str = "cpu") -> torch.Generator:
    """What stands for torch.Generator."""
    if torch.device(device).type != "cuda":
        return CpuGenerator(device)
    made = GpuGenerator()
    made.gpu = numbered(device)
    return made


CpuGenerator = torch.Generator


def numbered(device: torch.device | str) -> torch.device:
    """A device with its number: "cuda" is the first GPU."""
    device = torch.device(device)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def check_devices(func: Any, tensors: list[torch.Tensor]) -> None:
    """Raise RuntimeError unless all tensors are on one GPU. A GPU takes single numbers from the CPU, value by value."""
    strangers = (tensor for tensor in tensors if not isinstance(tensor, OnGpu))
    written = func._schema.is_mutable and not isinstance(tensors[0], OnGpu)
    alone = torch.Tag.pointwise in func.tags and not written
    places = {str(tensor.device) for tensor in strangers if tensor.ndim or not alone}
    places |= {str(tensor.device) for tensor in tensors if isinstance(tensor, OnGpu)}
    if len(places) > 1:
        raise RuntimeError(f"{func}: all tensors should be on the same device, but are on {', '.join(sorted(places))}")


def check_strides(*lists: list[torch.Tensor]) -> None:
    """Raise RuntimeError unless tensors lie in memory alike, as CUDA's fused kernels need them."""
    for tensors in zip(*lists, strict=True):
        lying = {
            tuple(stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1)
            for tensor in tensors
        }
        if len(lying) > 1:
            raise RuntimeError(f"fused: all lists must have the same layout, but have {lying}")


def cast(tensor: OnGpu) -> torch.Tensor:
    """What autocast on a GPU hands to a product."""
    return tensor.to(torch.get_autocast_dtype("cuda")) if tensor.dtype == torch.float32 else tensor


class _Operators(TorchDispatchMode):
    """Runs operators, which make tensors as well."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True takes seconds, for what a compiler needs is imported

    def __init__(self, gpu: torch.device) -> None:
        super().__init__()
        self.gpu = gpu  # what "meta" means

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator on the CPU, and put what comes out where a GPU would: where all its tensors are."""
        kwargs = kwargs or {}
        tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, torch.Tensor)]
        gpus = {tensor.gpu for tensor in tensors if isinstance(tensor, OnGpu)}
        wanted = kwargs.get("device")
        if wanted is not None:
            wanted = self.gpu if wanted.type == "meta" else numbered(wanted)
            kwargs = kwargs | {"device": torch.device("cpu")}
        target = wanted or next(iter(gpus), None)
        if target is None or (not gpus and target.type == "cpu"):
            return func(*args, **kwargs)
        if func not in COPIES:
            check_devices(func, tensors)
        if func is ATEN._fused_sgd_.default:
            check_strides(*args[:3])
        args, kwargs = tree_map_only(OnGpu, lambda tensor: tensor.values, (args, kwargs))
        made = func(*args, **kwargs)
        if target.type == "cpu":
            return made
        known = {id(tensor.values) if isinstance(tensor, OnGpu) else id(tensor): tensor for tensor in tensors}
        return tree_map_only(
            torch.Tensor, lambda value: known[id(value)] if id(value) in known else OnGpu.of(value, target), made
        )


class _Calls(TorchFunctionMode):
    """Does what torch would do before an operator runs, and what an operator cannot see."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") is not None:
            return func(*args, **kwargs | {"device": None}).to(kwargs["device"])
        if func is torch.Tensor.to and isinstance(args[1], (str, torch.device)):
            return func(args[0], numbered(args[1]), *args[2:], **kwargs)
        if (generator := kwargs.get("generator")) is not None:
            first = args[0].device if isinstance(args[0], torch.Tensor) else torch.device("cpu")
            place = numbered(kwargs.get("device") or first)
            if place != generator.device:
                raise RuntimeError(f"{func}: a generator on {place} was expected, but it is on {generator.device}")
        if func in CASTED and torch.is_autocast_enabled("cuda"):
            args = tree_map_only(OnGpu, cast, args)
        return func(*args, **kwargs)


@contextmanager
def pretended_gpus(count: int = 2) -> Iterator[str]:
    """Let torch find `count` GPUs, which multiply bfloat16. Yields the last one, the only one to be computed on.

    Of two the first is where what says only "cuda" goes by mistake.
    """
    last = torch.device("cuda", count - 1)
    name = "Pretended GPU"
    properties = SimpleNamespace(name=name, total_memory=2**33, major=8, minor=0)
    answers: dict[str, Callable[..., Any]] = {
        "torch.Generator": make_generator,
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.device_count": lambda: count,
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.is_bf16_supported": lambda *_: True,
        "torch.cuda.get_device_capability": lambda _=None: (8, 0),
        "torch.cuda.get_device_name": lambda _=None: name,
        "torch.cuda.get_device_properties": lambda _=None: properties,
        "torch.cuda.set_device": lambda _: None,
        "torch.cuda.synchronize": lambda _=None: None,
    }
    with ExitStack() as stack:
        for place, answer in answers.items():
            stack.enter_context(patch(place, answer))
        stack.enter_context(_Calls())
        stack.enter_context(_Operators(last))
        yield str(last)
