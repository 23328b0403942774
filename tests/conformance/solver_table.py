"""Write the table of solvers, with how far each is from real Caffe under each setting, into docs/engine.md.

    python tests/conformance/solver_table.py
"""

import tempfile
from contextlib import chdir
from pathlib import Path

import torch
from harness import Arrays, deviation
from layer_table import PAGE, number
from solving import (
    EXCHANGED,
    NAMES,
    SETTINGS,
    SOLVERS,
    STEPS,
    TYPES,
    after,
    comparable,
    make_training_folder,
    recorded_solver,
    run_solver,
)

from pipeline.atomic import atomic_file

EXCHANGES = ("resumes Caffe", "Caffe resumes")
COLUMNS = ("Solver", *SETTINGS, *EXCHANGES)
HEADING = f"| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * (len(COLUMNS) - 1)}\n"


def largest_deviation(ours: Arrays, caffe: Arrays) -> float:
    """Of the losses and of all parameters at the end."""
    mine, theirs = comparable(ours, caffe)
    return max(deviation(mine[key], value) for key, value in theirs.items())


def make_table() -> str:
    """The table's lines, a solver each; works in the folder of make_training_folder."""
    cells = {name: largest_deviation(run_solver(name, STEPS, "net.caffemodel"), recorded_solver(name))
             for name in NAMES}
    for name in EXCHANGED:
        solver_type = name.partition("_")[0]
        whole = recorded_solver(f"{name} at 100")
        resumed = run_solver(name, 50, SOLVERS / f"snapshots/{name}_iter_50.solverstate")
        cells[f"{solver_type}_resumes Caffe"] = largest_deviation(resumed, after(whole, 50))
        ours = run_solver(name, 100, "net.caffemodel")
        cells[f"{solver_type}_Caffe resumes"] = largest_deviation(after(ours, 50), recorded_solver(f"{name} from ours"))
    rows = [" | ".join([solver_type, *(number(cells[f"{solver_type}_{column}"]) for column in COLUMNS[1:])])
            for solver_type in TYPES]
    return "".join(f"| {row} |\n" for row in rows)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_training_folder(Path(folder))
        with chdir(folder):
            table = make_table()
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(HEADING)
    rest = rest[rest.index("\n\n") :].lstrip("\n")
    with atomic_file(PAGE, "w", encoding="utf-8") as file:
        file.write(f"{before}{HEADING}{table}\n{rest}")


if __name__ == "__main__":
    main()
