"""Turn a training's log into tables: parse_log LOGFILE OUTPUT_DIR writes LOGFILE.train and LOGFILE.test, as CSV."""

import csv
import math
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.tools.flags import FlagParser
from pipeline.caffe.train_log_parser import LogRow, read_history


def add_arguments(parser: FlagParser) -> None:
    parser.add_flag("verbose", False, "tell what was written")
    parser.add_flag("delimiter", ",", "what stands between columns")
    parser.add_argument("log", metavar="LOGFILE", type=Path, help="log of Caffe's training, or of this project's")
    parser.add_argument("output", metavar="OUTPUT_DIR", type=Path, help="folder of the tables")


def run(args: Namespace) -> None:
    if len(args.delimiter) != 1 or args.delimiter in '\r\n"':
        raise InputError(f"delimiter {args.delimiter!r} where one character was expected")
    if not args.output.is_dir():
        raise InputError(f"{args.output}: no folder; make it first")
    history = read_history(args.log)
    # Caffe mixes the rows of several test nets; here each net after the first has a table of its own.
    tables = {
        "train": history.train,
        "test": history.tests.get(0, []),
        **{f"test{net}": rows for net, rows in sorted(history.tests.items()) if net},
    }
    for name, rows in tables.items():
        path = args.output / f"{args.log.name}.{name}"
        if rows:
            write_table(path, rows, args.delimiter)
        if args.verbose:
            log.info("Wrote %s" if rows else "Not writing %s; no lines to write", path)


def write_table(path: Path, rows: Sequence[LogRow], delimiter: str) -> None:
    """Write rows as Caffe's parse_log.py writes them: columns NumIters, Seconds, LearningRate, and the net's outputs.

    A row's LearningRate is the one displayed last before it; the first row, which has none, takes the second's.
    """
    rates = [row.rate for row in rows]
    if math.isnan(rates[0]) and len(rates) > 1:
        rates[0] = rates[1]
    outputs = list(dict.fromkeys(name for row in rows for name in row.outputs))
    with atomic_file(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["NumIters", "Seconds", "LearningRate", *outputs])
        for row, rate in zip(rows, rates, strict=True):
            values = (row.outputs.get(name, "") for name in outputs)
            writer.writerow([float(row.iteration), row.seconds, rate, *values])
