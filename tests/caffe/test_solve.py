"""The course of a training: which events come, and when, as in Caffe."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline.caffe.proto.caffe_pb2 import SolverParameter
from pipeline.caffe.proto.files import BinaryError, parse_text
from pipeline.caffe.solver import Solver, get_solver
from pipeline.caffe.solver import solve as training
from pipeline.caffe.solver.snapshot import restore
from pipeline.caffe.solver.solve import Action, Ended, Event, Finished, Iterated, Requests, Snapshotted, solve

# One weight, from 1, that falls to 0.5 by the first update and to 0.25 by the second: the loss is w^2 / 2.
NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 }
  data_filler { value: 1 } data_filler { value: 0 } } }
layer { name: "w" type: "InnerProduct" bottom: "x" top: "wx"
  inner_product_param { num_output: 1 bias_term: false weight_filler { type: "constant" value: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "wx" bottom: "y" top: "loss" }
"""


def solver(folder: Path, fields: str, net: str = NET) -> Solver:
    text = f'lr_policy: "fixed" base_lr: 0.5 snapshot_prefix: "{folder}/w" {fields} net_param {{ {net} }}'
    return get_solver(parse_text(text, SolverParameter, "solver"))


def told(event: Event) -> str:
    match event:
        case training.TestInterrupted():
            return f"interrupted {event.iteration}"
        case training.Tested() | Finished():
            return f"{'last' if isinstance(event, Finished) else 'test'} {event.iteration} {event.loss:g}"
        case Snapshotted():
            return f"snapshot {event.snapshot.iteration}"
        case Ended():
            return f"{'stopped' if event.early else 'done'} {event.iteration}"
        case training.StoppedEarly():
            return f"no better than {event.best:g} at {event.iteration}"
    assert isinstance(event, training.Iterated)
    return f"{'display' if event.displayed else 'update'} {event.iteration} {event.loss:g}"


def course(events: Iterable[Event]) -> str:
    """The events that are told, but for the beginnings of tests."""
    return ", ".join(told(event) for event in events if not isinstance(event, training.TestBegun))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("max_iter: 2", "update 0 0.5, update 1 0.125, snapshot 2, done 2"),
        ("max_iter: 2 snapshot_after_train: false", "update 0 0.5, update 1 0.125, done 2"),
        ("max_iter: 2 snapshot: 2", "update 0 0.5, update 1 0.125, snapshot 2, done 2"),
        ("max_iter: 2 snapshot: 1", "update 0 0.5, snapshot 1, update 1 0.125, snapshot 2, done 2"),
        ("max_iter: 2 display: 2", "display 0 0.5, update 1 0.125, snapshot 2, last 2 0.03125, done 2"),
        ("max_iter: 3 display: 2", "display 0 0.5, update 1 0.125, display 2 0.03125, snapshot 3, done 3"),
        (
            "max_iter: 2 display: 2 average_loss: 2",
            "display 0 0.5, update 1 0.3125, snapshot 2, last 2 0.078125, done 2",
        ),
        (
            "max_iter: 2 test_iter: 1 test_interval: 2",
            "test 0 0.5, update 0 0.5, update 1 0.125, snapshot 2, test 2 0.03125, done 2",
        ),
        (
            "max_iter: 2 test_iter: 1 test_interval: 1 test_initialization: false",
            "update 0 0.5, test 1 0.125, update 1 0.125, snapshot 2, test 2 0.03125, done 2",
        ),
        ("max_iter: 0", "snapshot 0, done 0"),
        ("max_iter: 0 snapshot: 1", "done 0"),
    ],
)
def test_events_come_in_caffes_order(tmp_path: Path, fields: str, expected: str) -> None:
    assert course(solve(solver(tmp_path, fields))) == expected


def asks(*actions: Action) -> Requests:
    """Ask for one after the other, then for nothing."""
    return itertools.chain(actions, itertools.repeat(Action.NONE)).__next__


NONE, SNAPSHOT, STOP = Action


@pytest.mark.parametrize(
    ("fields", "requests", "expected"),
    [
        ("", (NONE, STOP), "update 0 0.5, update 1 0.125, snapshot 2, stopped 2"),
        ("snapshot: 2", (NONE, STOP), "update 0 0.5, update 1 0.125, snapshot 2, stopped 2"),
        ("snapshot_after_train: false", (STOP,), "update 0 0.5, stopped 1"),
        ("", (NONE, NONE, STOP), "update 0 0.5, update 1 0.125, update 2 0.03125, snapshot 3, stopped 3"),
        (
            "",
            (SNAPSHOT, NONE, STOP),
            "update 0 0.5, snapshot 1, update 1 0.125, update 2 0.03125, snapshot 3, stopped 3",
        ),
        ("test_iter: 3 test_interval: 2", (NONE, STOP), "interrupted 0, snapshot 0, stopped 0"),
        ("test_iter: 1 test_interval: 2", (NONE, STOP), "test 0 0.5, update 0 0.5, snapshot 1, stopped 1"),
        (
            "test_iter: 3 test_interval: 2",
            (SNAPSHOT, SNAPSHOT, NONE, STOP),
            "snapshot 0, snapshot 0, interrupted 0, snapshot 0, stopped 0",
        ),
        (
            "test_iter: 1 test_iter: 1 test_interval: 2",
            (NONE, STOP),
            "test 0 0.5, interrupted 0, snapshot 0, stopped 0",
        ),
    ],
)
def test_requests_are_heard_after_updates_and_amidst_tests(
    tmp_path: Path, fields: str, requests: tuple[Action, ...], expected: str
) -> None:
    assert course(solve(solver(tmp_path, f"max_iter: 3 {fields}"), asks(*requests))) == expected


@pytest.mark.parametrize("action", [SNAPSHOT, STOP])
def test_who_resumes_from_amidst_a_test_runs_it_from_its_beginning(tmp_path: Path, action: Action) -> None:
    random = NET.replace("data_filler { value: 1 }", 'data_filler { type: "uniform" }')
    fields = "max_iter: 1 test_iter: 2 test_interval: 1 random_seed: 1"

    def make() -> Solver:
        return solver(tmp_path, fields, random)

    interrupted, whole, resumed = make(), make(), make()
    list(solve(interrupted, asks(NONE, action)))
    restore(resumed, tmp_path / "w_iter_0.solverstate")
    losses = [[event.loss for event in solve(one) if isinstance(event, training.Tested)] for one in (whole, resumed)]
    assert losses[0] == losses[1]
    if action is SNAPSHOT:  # the interrupted one has gone on with its test
        assert interrupted.test_nets[0].state() == whole.test_nets[0].state()


def test_a_test_gives_the_means_of_outputs_and_loss(tmp_path: Path) -> None:
    random = NET.replace("data_filler { value: 1 }", 'data_filler { type: "uniform" }').replace(
        'top: "loss"', 'top: "loss" loss_weight: 2'
    )
    made = solver(tmp_path, "max_iter: 1 test_iter: 3 test_interval: 1 random_seed: 1", random)
    again = solver(tmp_path, "test_iter: 3 test_interval: 1 random_seed: 1", random)
    tested = next(event for event in solve(made) if isinstance(event, training.Tested))
    losses = [again.test_batch(0)[0]["loss"].item() for _ in range(3)]
    assert len(set(losses)) == 3
    assert tested.outputs["loss"].item() == pytest.approx(sum(losses) / 3)
    assert tested.loss == pytest.approx(2 * sum(losses) / 3)


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


# After two updates the rate is 0, and the loss stays as it is.
STALLS = 'test_iter: 1 test_interval: 1 test_metric: "loss" lr_policy: "multistep" gamma: 0 stepvalue: 2'


def fixed(folder: Path, fields: str) -> Solver:
    text = f'base_lr: 0.5 snapshot_prefix: "{folder}/w" {fields} net_param {{ {NET} }}'
    return get_solver(parse_text(text, SolverParameter, "solver"))


def test_early_stopping_ends_a_training_that_gets_no_better(tmp_path: Path) -> None:
    made = fixed(tmp_path, f"max_iter: 20 early_stopping: 2 {STALLS}")
    # The tests of iterations 3 and 4 are no better than that of 2.
    assert course(solve(made)).endswith("test 4 0.03125, no better than 0.03125 at 4, snapshot 4, stopped 4")


def test_a_test_must_be_better_by_min_delta(tmp_path: Path) -> None:
    made = fixed(tmp_path, f"max_iter: 20 early_stopping: 2 min_delta: 0.1 {STALLS}")
    assert course(solve(made)).endswith("no better than 0.125 at 3, snapshot 3, stopped 3")


@pytest.mark.parametrize("snapshot", [0, 1, 3])
def test_a_training_that_has_stopped_early_stops_again(tmp_path: Path, snapshot: int) -> None:
    fields = f"max_iter: 20 early_stopping: 2 {STALLS} snapshot: {snapshot}"
    list(solve(fixed(tmp_path, fields)))
    resumed = fixed(tmp_path, fields)
    restore(resumed, tmp_path / "w_iter_4.solverstate")
    events = list(solve(resumed))
    assert not any(isinstance(event, Iterated) for event in events)
    assert "no better than 0.03125 at 4" in course(events)


PLATEAU = (
    'test_iter: 1 test_interval: 1 test_metric: "loss" lr_policy: "plateau" plateau_patience: 2 gamma: 0.5 '
    "max_iter: 12 snapshot: 1 early_stopping: 7"
)


def plateau(folder: Path) -> Solver:
    """At its first rate every update changes the weight's sign and nothing else: the loss stays as it is."""
    made = fixed(folder, PLATEAU)
    made.param.base_lr, made.param.min_delta = 2, 0.01
    return made


def test_plateau_lowers_the_rate_when_tests_get_no_better(tmp_path: Path) -> None:
    events = list(solve(plateau(tmp_path)))
    updates = [event for event in events if isinstance(event, Iterated)]
    # The tests after the second and third update are no better than that after the first. At a rate of 1 the next
    # update makes the weight 0, which gets no better.
    assert [(event.rate, event.step) for event in updates[:7]] == [
        (2, None),
        (2, None),
        (2, None),
        (1, 1),
        (1, None),
        (1, None),
        (0.5, 2),
    ]
    assert updates[-1].iteration < 11


@pytest.mark.parametrize("iteration", range(1, 10))
def test_plateau_and_early_stopping_resume_to_the_bit(tmp_path: Path, iteration: int) -> None:
    whole = [told(event) for event in solve(plateau(tmp_path)) if isinstance(event, Iterated | training.StoppedEarly)]
    resumed = plateau(tmp_path)
    restore(resumed, tmp_path / f"w_iter_{iteration}.solverstate")
    rest = [told(event) for event in solve(resumed) if isinstance(event, Iterated | training.StoppedEarly)]
    assert rest == whole[iteration:]


@pytest.mark.parametrize(
    "progress", [None, {}, {"best": "low", "stale": 0, "waited": 0, "minimum_loss": None, "last_event": 0}]
)
def test_a_sidecar_without_what_early_stopping_counted_is_refused(
    tmp_path: Path, progress: dict[str, object] | None
) -> None:
    list(solve(plateau(tmp_path)))
    sidecar = tmp_path / "w_iter_3.resume.json"
    content = json.loads(sidecar.read_text())
    content["progress"] = progress
    sidecar.write_text(json.dumps(content))
    with pytest.raises(BinaryError, match=r"w_iter_3\.resume\.json: it does not fit"):
        restore(plateau(tmp_path), tmp_path / "w_iter_3.solverstate")
