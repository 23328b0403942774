"""Write the table of layer types, with how far each is from real Caffe, into docs/engine.md.

    python tests/conformance/layer_table.py
"""

import tempfile
from contextlib import chdir
from pathlib import Path

import torch
from harness import CASES, deviation, make_databases, recorded, run_case
from onnx_runtime import has_onnx_form, inference_cases, run_onnx
from values import all_cases

from pipeline.atomic import atomic_file
from pipeline.caffe.layers import LAYERS, LayerError

PAGE = Path(__file__).parents[2] / "docs/engine.md"
HEADING = "| Type | Cases | Deviation | ONNX |\n| --- | ---: | ---: | ---: |\n"


def cases_of(layer_type: str) -> list[str]:
    """The cases of a layer type."""
    return [case for case in all_cases(CASES) if case.startswith(f"{layer_type}/")]


def largest_deviation(layer_type: str) -> float:
    """The largest one of all blobs and gradients of all cases."""
    answers = [(run_case(case), recorded(case)) for case in cases_of(layer_type)]
    return max(deviation(ours[name], value) for ours, caffe in answers for name, value in caffe.items())


def largest_onnx_deviation(layer_type: str) -> float:
    """The largest one of the tops that ONNX Runtime makes."""
    largest = 0.0
    for case in set(cases_of(layer_type)).intersection(inference_cases()):
        try:
            tops = run_onnx(case)
        except LayerError:
            continue  # test_onnx_runtime.py lists them
        caffe = recorded(case)
        largest = max([largest, *(deviation(top, caffe[name]) for name, top in tops.items() if name in caffe)])
    return largest


def number(value: float) -> str:
    """How a deviation stands in the table."""
    return f"{value:.0e}".replace("e-0", "e-") if value else "0"


def make_table() -> str:
    """The table's lines, a type each."""
    rows = []
    for layer_type in sorted(LAYERS):
        onnx = number(largest_onnx_deviation(layer_type)) if has_onnx_form(layer_type) else "no"
        cells = (layer_type, str(len(cases_of(layer_type))), number(largest_deviation(layer_type)), onnx)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        make_databases(Path(folder))
        table = make_table()
    before, _, after = PAGE.read_text(encoding="utf-8").partition(HEADING)
    rest = after[after.index("\n\n") :].lstrip("\n")
    with atomic_file(PAGE, "w", encoding="utf-8") as file:
        file.write(f"{before}{HEADING}{table}\n{rest}")


if __name__ == "__main__":
    main()
