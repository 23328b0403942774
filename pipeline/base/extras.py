"""Packages that not every command needs: which of the extras in pyproject.toml brings each."""

from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGES = {
    "bot": ["telegram"],
    "engine": ["graphviz", "h5py", "lmdb", "onnx", "torch"],
    "leveldb": ["plyvel"],
    "plots": ["matplotlib"],
    "serve": ["fastapi", "prometheus_client", "starlette", "uvicorn", "websockets"],
    "train": ["pandas", "safetensors", "scipy", "sklearn", "snakemake"],
    "window": ["pygame"],
}


def how_to_install(error: ModuleNotFoundError) -> str | None:
    """What to do about a package that is not installed, on one line; None for one that no extra brings."""
    package = (error.name or "").split(".")[0]
    extra = next((extra for extra, packages in _PACKAGES.items() if package in packages), None)
    return extra and f"the package {package} is not installed; pip install 'caffe-expressions[{extra}]'"


@contextmanager
def naming_missing_package() -> Iterator[None]:
    """End the program with one line that says what to install when a package that an extra brings is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        remedy = how_to_install(error)
        if remedy is None:
            raise
        raise SystemExit(f"error: {remedy}") from None
