"""A Caffe 1.0 engine on PyTorch: reads, trains and writes Caffe's nets. Knows nothing of faces.

`import pipeline.caffe as caffe` has the names of Caffe's own Python interface, and loads what stands behind one when it
is first asked for; see docs/pycaffe.md.
"""

from importlib import import_module
from typing import Any

__version__ = "1.0.0"  # Caffe's, whose interface it is

# The module that each name of Caffe's Python interface comes from; names of modules themselves are found by import.
_NAMES = {
    **dict.fromkeys(["TEST", "TRAIN"], "proto.caffe_pb2"),
    **dict.fromkeys(["Classifier"], "classifier"),
    **dict.fromkeys(["Detector"], "detector"),
    **dict.fromkeys(
        [
            "allow_python_layers",
            "has_nccl",
            "init_log",
            "set_device",
            "set_mode_cpu",
            "set_mode_gpu",
            "set_multiprocess",
            "set_random_seed",
            "set_solver_count",
            "set_solver_rank",
            "solver_count",
            "solver_rank",
        ],
        "common",
    ),
    **dict.fromkeys(["NetSpec", "to_proto"], "net_spec"),
    **dict.fromkeys(["Layer", "Net", "layer_type_list"], "pycaffe.net"),
    **dict.fromkeys(
        ["AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "NesterovSolver", "RMSPropSolver", "SGDSolver", "get_solver"],
        "pycaffe.solvers",
    ),
}
_MODULES = (
    "_caffe",
    "classifier",
    "coord_map",
    "detector",
    "draw",
    "io",
    "layers",
    "net_spec",
    "params",
    "proto",
    "pycaffe",
)
_ABSENT = {
    "NCCL": "a script trains on one GPU or the CPU, the command train on several",
    "Timer": "use time.perf_counter, or the command time for a net's layers",
}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(
        f"module '{__name__}' has no attribute '{name}'"
        + (f", which Caffe has: {_ABSENT[name]}" if name in _ABSENT else "")
    )


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *_NAMES, *_MODULES])
