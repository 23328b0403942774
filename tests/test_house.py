"""The rooms of pipeline/: which may import which. docs/architecture.md draws them."""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipeline.__main__ import STAGES

ROOT = Path(__file__).parents[1]
# Each room, and the rooms that it may import, from the ground floor up. All may ask `pipeline` for the version.
ROOMS: dict[str, list[str]] = {
    "base": [],
    "readings": [],
    "caffe": ["base"],
    "data": ["base"],
    "faces": ["base", "readings"],
    "classifier": ["base", "caffe", "data"],
    "drawing": ["base", "readings"],
    "media": ["base", "drawing", "readings"],
    "predictor": ["base", "classifier", "faces", "media", "readings"],
    "page": [],
    "server": ["base", "drawing", "media", "page", "readings"],
    "bot": ["base", "drawing", "media", "readings"],
    "web": ["base", "classifier", "drawing", "faces", "page", "predictor"],
}
ROOMS["stages"] = list(ROOMS)
# What a stage still takes from another, until that has a place in classifier/.
SHARED = {"ensemble": ["evaluate", "export"]}
# Names that several modules share on purpose.
SAME_NAMES = {
    # what each command has, and what is said with the module's name before it: model_folder.read, console.set_up
    *("add_arguments", "run", "main", "find", "read", "register", "set_up", "render"),
    # pycaffe's own names beside the engine's and the pipeline's
    *("AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "NesterovSolver", "RMSPropSolver", "SGDSolver", "Solver"),
    *("Classifier", "Detector", "ImageData", "Net", "Tile", "Transformer", "datum_to_array", "get_solver"),
}
# The engine's own floors, from the ground up: a module may import what stands in its line or below.
ENGINE = [
    ["proto", "forks", "glog", "memory_budget", "train_log_parser", "hdf5"],
    ["images", "net_spec", "params", "tools.flags"],
    ["database", "fillers", "blob", "common", "coord_map", "io", "augmentation", "precision", "data_transformer"],
    ["layers", "need_backward"],
    ["insert_splits", "net_log", "draw"],
    ["weights"],
    ["net"],
    ["solver", "averaging", "grad_cam", "real_caffe", "onnx", "pycaffe", "classifier", "detector"],
    ["_caffe", "tools", "__main__"],
    ["shim"],
]


@cache
def modules() -> dict[str, Path]:
    """The package's modules by their dotted names."""
    found = {}
    for path in (ROOT / "pipeline").rglob("*.py"):
        if "weights" not in path.parts:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path
    return found


def imports(name: str, *, lazy: bool) -> Iterator[str]:
    """The package's modules that a module imports; with `lazy` inside functions too, never those for types alone."""
    nodes: list[ast.AST] = [ast.parse(modules()[name].read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not lazy:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pipeline":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules() else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "pipeline")
        nodes += ast.iter_child_nodes(node)


def room(name: str) -> str:
    return [*name.split("."), "pipeline"][1]


def floor(name: str) -> int | None:
    """The engine's floor that a module stands on; None outside of it, and for the engine's own front door."""
    if not name.startswith("pipeline.caffe."):
        return None
    inner = name.removeprefix("pipeline.caffe.")
    whole = [number for number, line in enumerate(ENGINE) if inner in line]
    first = [number for number, line in enumerate(ENGINE) if inner.split(".")[0] in line]
    assert whole or first, f"{name}: say in ENGINE on which floor it stands"
    return (whole or first)[0]


def test_every_module_is_in_a_room() -> None:
    assert {room(name) for name in modules()} == {*ROOMS, "pipeline", "__main__"}


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_import_runs_up_a_floor(name: str) -> None:
    if name in ("pipeline", "pipeline.__main__"):  # the front door and the table of commands open every room
        return
    for imported in imports(name, lazy=True):
        target = room(imported)
        assert target in ("pipeline", room(name), *ROOMS[room(name)]), f"{name} imports {imported}"
        here, there = floor(name), floor(imported)
        assert here is None or there is None or there <= here, f"{name} imports {imported}, which stands above it"


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_no_stage_imports_another(stage: str) -> None:
    found = set(imports(f"pipeline.stages.{stage}", lazy=True))
    allowed = {f"pipeline.stages.{other}" for other in SHARED.get(stage, ())}
    assert not {f"pipeline.stages.{other}" for other in STAGES} & found - allowed


def test_one_name_is_one_thing() -> None:
    """No public class or function of one module has the name of another module's."""
    homes: dict[str, list[str]] = {}
    for module, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                homes.setdefault(node.name, []).append(module)
    twice = {
        name: where
        for name, where in homes.items()
        if len(where) > 1 and not name.startswith("_") and name not in SAME_NAMES
    }
    assert not twice, f"rename one of each, or let one take the other's place: {twice}"


def test_no_two_test_files_have_one_name() -> None:
    """pytest takes the second for the first: it refuses all the tests, though each folder alone passes."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


def test_there_is_no_cycle() -> None:
    """Not of what modules import when they are loaded, however far round."""
    loads = {name: set(imports(name, lazy=False)) - {name} for name in modules()}
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for imported in sorted(loads[name]):
            # A package that is asked for one of its own modules' neighbours does not import its __init__ again.
            if not name.startswith(f"{imported}."):
                visit(imported)
        path.pop()
        done.add(name)

    for name in sorted(loads):
        visit(name)
