"""`import caffe`, where this folder's parent comes first on Python's path: the engine under Caffe's own name."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pipeline.caffe as _engine
from pipeline.caffe import __version__


class _Engine(MetaPathFinder, Loader):
    """Finds caffe.NAME as the very module pipeline.caffe.NAME, so that its classes are one and the same."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.startswith(f"{__name__}.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        name = spec.name.removeprefix(f"{__name__}.")
        module = import_module(f"pipeline.caffe.{name}")
        if name == "proto":  # in Caffe's package a folder
            sys.modules[f"{spec.name}.caffe_pb2"] = module.caffe_pb2
        self.own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own  # which the import has put the name that it was asked for in


sys.meta_path.insert(0, _Engine())
__path__ = []  # all that is in the package is the engine's


def __getattr__(name: str) -> Any:
    if name == "log":  # in the engine's package a module, that writes a training's log
        return import_module("pipeline.caffe.common").write_log
    return getattr(_engine, name)


def __dir__() -> list[str]:
    return sorted({*dir(_engine), "log"})


__all__ = ["__version__"]
