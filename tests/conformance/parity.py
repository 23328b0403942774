"""The parity page, docs/parity.md: how far the engine is from real Caffe in all that the suite compares.

    CAFFE_ROOT=DIR pytest tests/conformance --parity docs/parity.md

Tests enter what they measured through the fixture `parity`; a run without a failure writes the page.
"""

from collections import defaultdict
from pathlib import Path

from pipeline.base.atomic import atomic_file

INTRODUCTION = """\
# Parity with real Caffe

The largest difference between a blob here and in Caffe 1.0, divided by the largest value in Caffe's. 0 is equality, to
the byte where files are compared; an empty cell was not compared. One command makes this page where real Caffe is:

```sh
CAFFE_ROOT=DIR pytest tests/conformance --parity docs/parity.md
```

Nets are left out in which Caffe's own gradient is wrong, as with Sigmoid and Dropout in place on one blob:
[engine.md](engine.md#where-caffes-gradient-is-wrong) lists them.
"""

# Of each table: what its rows are, and what stands above it.
TABLES = {
    "Layers": (
        "Type",
        "Tops, bottom gradients and parameter gradients; and the tops that ONNX Runtime makes of the exported net.",
    ),
    "Solvers": (
        "Type",
        "Losses and parameters over 200 iterations for each setting, then one engine's 50 iterations "
        "after 50 of the other.",
    ),
    "Learning rate policies": ("Policy", "Over 200 iterations with each solver."),
    "Fillers": ("Filler", "Values; where they are drawn, the largest difference of the two cumulative distributions."),
    "Nets": ("Net", "Forward results and gradients on random weights, at reduced sizes; and through ONNX Runtime."),
    "File formats": ("Format", "Files of one engine read by the other, and bytes that differ."),
    "Tools": ("Tool", "What each command writes."),
    "Python interface": ("Part", "What a script sees."),
}


class Parity:
    """Deviations by table, row and column, the largest one of each cell; and how many each row has."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        self.counts: dict[tuple[str, str], int] = defaultdict(int)

    def __call__(self, table: str, row: str, column: str, deviation: float) -> None:
        """Enter a measured deviation: relative to real Caffe's largest value, 0 for what is equal."""
        assert table in TABLES, f"{table}: not a table of the parity page; {', '.join(TABLES)} are"
        cells = self.cells[table][row]
        cells[column] = max(deviation, cells.get(column, 0.0))
        self.counts[table, row] += 1

    def page(self) -> str:
        """The page's text."""
        parts = [INTRODUCTION]
        for table, (kind, about) in TABLES.items():
            rows = self.cells[table]
            columns = list(dict.fromkeys(column for row in sorted(rows) for column in rows[row]))
            lines = [f"| {kind} | Comparisons | {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) + 1)}"]
            for row in sorted(rows):
                cells = (number(rows[row][column]) if column in rows[row] else "" for column in columns)
                lines.append(f"| {row} | {self.counts[table, row]} | {' | '.join(cells)} |")
            parts.append(f"\n## {table}\n\n{about}\n\n" + "\n".join(lines) + "\n")
        return "".join(parts)

    def write(self, path: Path) -> None:
        """Write the page."""
        with atomic_file(path, "w", encoding="utf-8") as file:
            file.write(self.page())


def number(deviation: float) -> str:
    """How a deviation stands in the table."""
    return f"{deviation:.0e}".replace("e-0", "e-") if deviation else "0"
