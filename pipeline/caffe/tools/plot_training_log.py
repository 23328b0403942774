"""Plot trainings by their logs: plot_training_log CHART_TYPE PLOT LOG…; --help tells of the chart types, 0 to 7."""

import math
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.tools.flags import FlagParser
from pipeline.caffe.train_log_parser import History, LogError, Value, read_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTITIES = ("Test accuracy", "Test loss", "Train learning rate", "Train loss")
AXES = ("Iters", "Seconds")
CHARTS = list(product(QUANTITIES, AXES))  # in Caffe's order

SUFFIXES = (".png", ".svg", ".pdf")
MARKED_VALUES = 60  # of a curve with as few, each is marked
# Colours that the colour-blind tell apart (Okabe and Ito), the yellow left out, which is faint on white; then the
# same ones dashed and dotted.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":")

Curves = dict[str, list[Value]]


def add_arguments(parser: FlagParser) -> None:
    charts = ", ".join(f"{number} {quantity} vs. {axis}" for number, (quantity, axis) in enumerate(CHARTS))
    parser.add_argument("chart", metavar="CHART_TYPE", help=charts)
    parser.add_argument("plot", metavar="PLOT", type=Path, help="picture to write: .png, .svg or .pdf")
    parser.add_argument("logs", metavar="LOG", type=Path, nargs="+", help="log of Caffe's training, or of ours")


def run(args: Namespace) -> None:
    if not args.chart.isdecimal() or int(args.chart) >= len(CHARTS):
        raise InputError(f"chart type '{args.chart}' where 0 to {len(CHARTS) - 1} was expected")
    if args.plot.suffix.lower() not in SUFFIXES:
        raise InputError(f"{args.plot}: a picture that ends with {', '.join(SUFFIXES)} was expected")
    quantity, axis = CHARTS[int(args.chart)]
    figure = draw_curves(quantity, axis, dict(_curves(quantity, args.logs)))
    with atomic_file(args.plot) as file:
        figure.savefig(file, format=args.plot.suffix.lower().removeprefix("."), dpi=150)
    log.info("Plotted %s vs. %s into %s", quantity, axis, args.plot)


def _curves(quantity: str, logs: Sequence[Path]) -> Iterator[tuple[str, list[Value]]]:
    """The curves of all logs, each with what the legend calls it: the log, and the output where there are several."""
    names = [path.name.removesuffix(".log") for path in logs]
    if len(set(names)) < len(names):
        names = [str(path) for path in logs]
    for name, path in zip(names, logs, strict=True):
        curves = curves_of(quantity, read_history(path), str(path))
        for output, values in curves.items():
            yield name if len(curves) == 1 else f"{name}: {output}", values


def curves_of(quantity: str, history: History, name: str) -> Curves:
    """The curves of a training, by output: of tests there may be several. Raises LogError, naming the log, for none."""
    if quantity == "Train loss":
        found = {"loss": history.losses}
    elif quantity == "Train learning rate":
        found = {"learning rate": history.rates}
    else:
        found = _test_curves(history, "acc" if quantity == "Test accuracy" else "loss")
    found = {output: values for output, values in found.items() if any(math.isfinite(item.value) for item in values)}
    if not found:
        outputs = sorted({output for rows in history.tests.values() for row in rows for output in row.outputs})
        hint = (
            (f"the tests' outputs are {', '.join(outputs)}" if outputs else "it tells of no test")
            if quantity.startswith("Test")
            else "set display in the solver"
        )
        raise LogError(f"{name}: no {quantity.lower()}; {hint}")
    return found


def _test_curves(history: History, word: str) -> Curves:
    """The outputs of all test nets that have the word in their name."""
    found: Curves = {}
    for net, rows in sorted(history.tests.items()):
        for row in rows:
            for output, value in row.outputs.items():
                if word in output.lower():
                    key = f"{output} of net {net}" if len(history.tests) > 1 else output
                    found.setdefault(key, []).append(Value(row.iteration, row.seconds, value))
    return found


def draw_curves(quantity: str, axis: str, curves: Mapping[str, Sequence[Value]]) -> "Figure":
    """Draw curves over iterations or seconds; a value that is not finite leaves a gap."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 5), layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (name, values), (dash, colour) in zip(curves.items(), cycle(product(DASHES, COLOURS)), strict=False):
        axes.plot(
            [value.iteration if axis == "Iters" else value.seconds for value in values],
            [value.value if math.isfinite(value.value) else math.nan for value in values],
            color=colour,
            linestyle=dash,
            linewidth=1.8,
            label=name,
            clip_on=False,
            zorder=3,
            marker="o" if len(values) <= MARKED_VALUES else None,
            markersize=4.5,
        )
    shown = [value.value for values in curves.values() for value in values if math.isfinite(value.value)]
    if quantity == "Train learning rate" and min(shown) > 0 and max(shown) >= 10 * min(shown):
        axes.set_yscale("log")
    elif quantity != "Train learning rate":
        axes.margins(y=0.08)
    axes.set_title(quantity, loc="left", fontsize=14, fontweight="bold", pad=12)
    axes.set_xlabel("iterations" if axis == "Iters" else "seconds", color="#444444")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=axis == "Iters"))
    axes.margins(x=0.02)
    axes.grid(axis="y", color="#E3E3E3", linewidth=0.9)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#888888")
    axes.tick_params(length=0, labelcolor="#444444", which="both")
    axes.tick_params(axis="x", length=4, color="#888888")
    if len(curves) > 1:
        figure.legend(loc="outside lower left", ncols=min(3, len(curves)), frameon=False, fontsize=10)
    else:
        axes.text(1, 1.02, next(iter(curves)), transform=axes.transAxes, ha="right", va="bottom", color="#444444")
    return figure
