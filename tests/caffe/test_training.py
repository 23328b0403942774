"""The course of a training: which events come, and when, as in Caffe."""

import itertools
from pathlib import Path

import pytest

from pipeline.caffe import training
from pipeline.caffe.caffe_pb2 import SolverParameter
from pipeline.caffe.proto import parse_text
from pipeline.caffe.solver import Solver, get_solver
from pipeline.caffe.training import Event, Finished, Iterated, Snapshotted, solve

# One weight, from 1, that falls to 0.5 by the first update and to 0.25 by the second: the loss is w^2 / 2.
NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 }
  data_filler { value: 1 } data_filler { value: 0 } } }
layer { name: "w" type: "InnerProduct" bottom: "x" top: "wx"
  inner_product_param { num_output: 1 bias_term: false weight_filler { type: "constant" value: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "wx" bottom: "y" top: "loss" }
"""


def solver(folder: Path, fields: str) -> Solver:
    text = f'lr_policy: "fixed" base_lr: 0.5 snapshot_prefix: "{folder}/w" {fields} net_param {{ {NET} }}'
    return get_solver(parse_text(text, SolverParameter, "solver"))


def told(event: Event) -> str:
    if isinstance(event, training.Tested):
        return f"test {event.iteration} {event.loss:g}"
    if isinstance(event, Snapshotted):
        return f"snapshot {event.snapshot.iteration}"
    if isinstance(event, Finished):
        return f"last {event.iteration} {event.loss:g}"
    return f"{'display' if event.displayed else 'update'} {event.iteration} {event.loss:g}"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("max_iter: 2", "update 0 0.5, update 1 0.125, snapshot 2"),
        ("max_iter: 2 snapshot_after_train: false", "update 0 0.5, update 1 0.125"),
        ("max_iter: 2 snapshot: 2", "update 0 0.5, update 1 0.125, snapshot 2"),
        ("max_iter: 2 snapshot: 1", "update 0 0.5, snapshot 1, update 1 0.125, snapshot 2"),
        ("max_iter: 2 display: 2", "display 0 0.5, update 1 0.125, snapshot 2, last 2 0.03125"),
        ("max_iter: 3 display: 2", "display 0 0.5, update 1 0.125, display 2 0.03125, snapshot 3"),
        ("max_iter: 2 display: 2 average_loss: 2", "display 0 0.5, update 1 0.3125, snapshot 2, last 2 0.078125"),
        ("max_iter: 2 test_iter: 1 test_interval: 2",
         "test 0 0.5, update 0 0.5, update 1 0.125, snapshot 2, test 2 0.03125"),
        ("max_iter: 2 test_iter: 1 test_interval: 1 test_initialization: false",
         "update 0 0.5, test 1 0.125, update 1 0.125, snapshot 2, test 2 0.03125"),
        ("max_iter: 0", "snapshot 0"),
    ],
)  # fmt: skip
def test_events_come_in_caffes_order(tmp_path: Path, fields: str, expected: str) -> None:
    assert ", ".join(map(told, solve(solver(tmp_path, fields)))) == expected


def test_a_stop_ends_with_a_snapshot_and_no_last_test(tmp_path: Path) -> None:
    stops = itertools.chain([False], itertools.repeat(True))
    fields = "max_iter: 9 display: 2 test_iter: 1 test_interval: 2 snapshot_after_train: false"
    events = list(solve(solver(tmp_path, fields), lambda: next(stops)))
    assert [told(event) for event in events] == ["test 0 0.5", "display 0 0.5", "update 1 0.125", "snapshot 2"]


def test_an_update_tells_its_step_and_what_was_clipped(tmp_path: Path) -> None:
    made = solver(tmp_path, "max_iter: 3 stepvalue: 1 gamma: 1 clip_gradients: 0.5")
    made.param.lr_policy = "multistep"
    updates = [event for event in solve(made) if isinstance(event, Iterated)]
    assert [(event.step, event.gradient_norm) for event in updates] == [(None, 1), (1, 0.75), (None, None)]


def test_debug_info_is_told_of_displayed_iterations_and_of_tests(tmp_path: Path) -> None:
    events = list(solve(solver(tmp_path, "max_iter: 2 display: 2 test_iter: 1 test_interval: 2 debug_info: true")))
    lines = [event.debug_lines for event in events if isinstance(event, training.Tested | Iterated)]
    assert [bool(some) for some in lines] == [True, True, False, True]
    assert "    [Backward] Layer w, param blob 0 diff: 1" in lines[1]
    assert not any("Backward" in line for line in lines[0])
