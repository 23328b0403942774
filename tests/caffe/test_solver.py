"""Solvers: their rules by hand, the nets they build, and what they refuse, as Caffe does."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.caffe.proto.caffe_pb2 import TRAIN, NetParameter, SolverParameter
from pipeline.caffe.proto.files import parse_text, read_solver
from pipeline.caffe.solver import POLICIES, SOLVERS, Solver, SolverError, get_solver

# One weight w, from 1: the loss is (2w - 5)^2 / 2, and its gradient 2 (2w - 5).
NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 }
  data_filler { value: 2 } data_filler { value: 5 } } }
layer { name: "w" type: "InnerProduct" bottom: "x" top: "wx" param { lr_mult: 0.5 decay_mult: 2 }
  inner_product_param { num_output: 1 bias_term: false weight_filler { type: "constant" value: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "wx" bottom: "y" top: "loss" }
"""


def solver(fields: str, net: str = NET) -> Solver:
    return get_solver(parse_text(f'lr_policy: "fixed" {fields} net_param {{ {net} }}', SolverParameter, "solver"))


def nesterov(g: float, h: list[float], t: int) -> float:
    before, h[0] = h[0], 0.9 * h[0] + 0.05 * g
    return 1.9 * h[0] - 0.9 * before


def sgd(g: float, h: list[float], t: int) -> float:
    h[0] = 0.9 * h[0] + 0.05 * g
    return h[0]


def adagrad(g: float, h: list[float], t: int) -> float:
    h[0] += g * g
    return 0.05 * g / (math.sqrt(h[0]) + 0.5)


def rmsprop(g: float, h: list[float], t: int) -> float:
    h[0] = 0.8 * h[0] + 0.2 * g * g
    return 0.05 * g / (math.sqrt(h[0]) + 0.5)


def adadelta(g: float, h: list[float], t: int) -> float:
    h[0] = 0.9 * h[0] + 0.1 * g * g
    u = g * math.sqrt((0.5 + h[1]) / (0.5 + h[0]))
    h[1] = 0.9 * h[1] + 0.1 * u * u
    return 0.05 * u


def adam(g: float, h: list[float], t: int) -> float:
    h[0] = 0.9 * h[0] + 0.1 * g
    h[1] = 0.7 * h[1] + 0.3 * g * g
    return 0.05 * math.sqrt(1 - 0.7**t) / (1 - 0.9**t) * h[0] / (math.sqrt(h[1]) + 0.5)


RULES: dict[str, tuple[str, Callable[[float, list[float], int], float]]] = {
    "SGD": ("momentum: 0.9", sgd),
    "Nesterov": ("momentum: 0.9", nesterov),
    "AdaGrad": ("delta: 0.5", adagrad),
    "RMSProp": ("delta: 0.5 rms_decay: 0.8", rmsprop),
    "AdaDelta": ("delta: 0.5 momentum: 0.9", adadelta),
    "Adam": ("delta: 0.5 momentum: 0.9 momentum2: 0.7", adam),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("regularization", ["L1", "L2"])
def test_a_rule_moves_a_weight_as_by_hand(name: str, regularization: str) -> None:
    fields, rule = RULES[name]
    made = solver(f'type: "{name}" base_lr: 0.1 weight_decay: 0.03 regularization_type: "{regularization}" {fields}')
    weight, history = 1.0, [0.0, 0.0]
    for number in range(1, 5):
        made.step()
        decay = 0.06 * (weight if regularization == "L2" else 1)
        weight -= rule(2 * (2 * weight - 5) + decay, history, number)
        assert made.net.params["w"][0].item() == pytest.approx(weight, rel=1e-5)
    assert [blob.item() for blob in made.history] == pytest.approx(history[: made.slots], rel=1e-5)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_frozen_weight_stays_though_its_history_gathers_decay(name: str) -> None:
    made = solver(f'type: "{name}" base_lr: 0.1 weight_decay: 0.03', NET.replace("lr_mult: 0.5", "lr_mult: 0"))
    for _ in range(3):
        made.step()
    assert made.net.params["w"][0].item() == 1
    assert (made.history[0].item() != 0) == (name not in ("SGD", "Nesterov"))


@pytest.mark.parametrize(("limit", "factor"), [(-1, 1), (100, 1), (3, 0.5), (0, 0)])
def test_gradients_are_clipped_to_their_norm(limit: float, factor: float) -> None:
    made = solver(f"base_lr: 1 clip_gradients: {limit}")
    made.step()
    assert made.net.params["w"][0].item() == pytest.approx(1 + 0.5 * 6 * factor)
    assert made.gradient_norm == (None if factor == 1 else 6)


def test_an_iteration_averages_its_batches() -> None:
    once, thrice = solver("base_lr: 0.1"), solver("base_lr: 0.1 iter_size: 3")
    assert once.step() == thrice.step()
    assert thrice.net.params["w"][0].item() == pytest.approx(once.net.params["w"][0].item())
    assert list(thrice.losses) == [4.5]


@pytest.mark.parametrize(
    ("number", "name"), [(0, "SGD"), (1, "Nesterov"), (2, "AdaGrad"), (3, "RMSProp"), (4, "AdaDelta"), (5, "Adam")]
)
def test_the_legacy_enum_names_a_type(number: SolverParameter.SolverType, name: str) -> None:
    param = SolverParameter(lr_policy="fixed", solver_type=number, net_param=parse_text(NET, NetParameter, "net"))
    made = get_solver(param)
    assert isinstance(made, SOLVERS[name])
    assert made.param.type == name
    assert not made.param.HasField("solver_type")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('type: "AdaGrad" momentum: 0.9', "momentum 0.9 where AdaGrad takes none"),
        ('type: "RMSProp" momentum: 0.9', "momentum 0.9 where RMSProp takes none"),
        ('type: "RMSProp" rms_decay: 1', "rms_decay 1"),
        ('type: "Adam" momentum: 1', "momentum 1"),
        ('type: "Adam" momentum2: 1', "momentum2 1"),
        ('type: "Adam" solver_type: ADAM', "both type 'Adam' and the solver_type"),
        ("average_loss: 0", "average_loss 0"),
        ("early_stopping: -1", "early_stopping -1"),
        ("early_stopping: 1", "go by tests, and there is no test net"),
        ("early_stopping: 1 test_iter: 1 test_interval: 1", "test_metric 'accuracy' where the outputs .* are loss"),
        ('test_metric: "auc"', "test_metric 'auc' where accuracy or loss"),
        ("plateau_winsize: 0", r"plateau_winsize \[0\]"),
        ("warmup_iter: -1", "warmup_iter -1 where at least 0"),
        ("snapshot: 10", "needs a snapshot_prefix"),
        ('snapshot: 10 snapshot_prefix: "/dev/null/deep/er"', "/dev/null is no folder"),
        ('net: "a.prototxt"', "net and net_param are given where one"),
        ('test_interval: 1 test_net: "a" test_net: "b" test_iter: 1', "1 test_iter for 2 test nets"),
        ("test_interval: 1 test_iter: 1 test_state {} test_state {}", "1 test_iter for 2 test_state"),
        ("test_state {}", "0 test_iter for 1 test_state"),
    ],
)
def test_what_cannot_be_is_refused(fields: str, said: str) -> None:
    with pytest.raises(SolverError, match=said):
        solver(fields)


@pytest.mark.parametrize("policy", ["step", "exp", "inv", "multistep", "sigmoid"])
def test_a_negative_gamma_is_refused(policy: str) -> None:
    param = SolverParameter(lr_policy=policy, gamma=-0.5, stepsize=1, net_param=parse_text(NET, NetParameter, "net"))
    with pytest.raises(SolverError, match=r"gamma -0\.5"):
        get_solver(param)


def test_test_nets_need_a_net_each() -> None:
    param = SolverParameter(
        lr_policy="fixed", test_iter=[1], test_interval=1, train_net_param=parse_text(NET, NetParameter, "net")
    )
    with pytest.raises(SolverError, match="1 test_iter for 0 test nets"):
        get_solver(param)


def test_a_rate_beyond_floats_is_what_c_answers() -> None:
    param = SolverParameter(base_lr=1, gamma=10, power=0.5, stepsize=100_000, max_iter=10)
    assert POLICIES["sigmoid"](param, 0, 0) == pytest.approx(0, abs=1e-300)
    assert POLICIES["exp"](param, 1000, 0) == math.inf
    assert math.isnan(POLICIES["poly"](param, 20, 0))


@pytest.mark.parametrize(
    ("fields", "rates"),  # of iterations 0, 2, 4 and 6
    [
        ('lr_policy: "fixed" gamma: 0.5', [0.1, 0.1, 0.1, 0.1]),
        ('lr_policy: "step" gamma: 0.5 stepsize: 3', [0.1, 0.1, 0.05, 0.025]),
        ('lr_policy: "exp" gamma: 0.5', [0.1, 0.025, 0.1 / 16, 0.1 / 64]),
        ('lr_policy: "inv" gamma: 0.5 power: 2', [0.1, 0.1 / 4, 0.1 / 9, 0.1 / 16]),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 5', [0.1, 0.05, 0.05, 0.025]),
        ('lr_policy: "poly" power: 2 max_iter: 8', [0.1, 0.1 * 9 / 16, 0.1 / 4, 0.1 / 16]),
        ('lr_policy: "sigmoid" gamma: 1 stepsize: 4', [0.1 / (1 + math.exp(before)) for before in (4, 2, 0, -2)]),
    ],
)
def test_the_rate_is_the_policys(fields: str, rates: list[float]) -> None:
    made = get_solver(parse_text(f"base_lr: 0.1 {fields} net_param {{ {NET} }}", SolverParameter, "solver"))
    assert [made.step() for _ in range(7)][::2] == pytest.approx(rates)


@pytest.mark.parametrize("fields", ['lr_policy: "step"', 'lr_policy: "sigmoid" stepsize: 0', 'lr_policy: "warm"'])
def test_a_policy_without_its_step_and_one_that_is_none_are_refused(fields: str) -> None:
    message = "'warm' is unknown; one of fixed, step, .*, plateau was" if "warm" in fields else "stepsize of at least 1"
    with pytest.raises(SolverError, match=message):
        get_solver(parse_text(f"{fields} net_param {{ {NET} }}", SolverParameter, "solver"))


@pytest.mark.parametrize("policy", ["fixed", "poly"])
def test_a_gamma_that_a_policy_does_not_use_may_be_anything(policy: str) -> None:
    text = f'base_lr: 0.1 lr_policy: "{policy}" gamma: -1 power: 1 max_iter: 2 net_param {{ {NET} }}'
    assert get_solver(parse_text(text, SolverParameter, "solver")).step() == pytest.approx(0.1)


def test_the_step_policy_keeps_its_step() -> None:
    made = get_solver(
        parse_text(
            f'lr_policy: "step" gamma: 0.5 stepsize: 2 base_lr: 1 net_param {{ {NET} }}', SolverParameter, "solver"
        )
    )
    assert [(made.step(), made.current_step) for _ in range(5)] == [(1, 0), (1, 0), (0.5, 1), (0.5, 1), (0.25, 2)]


def test_test_nets_stand_in_caffes_order_and_states(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(f'name: "Generic" {NET}')
    (tmp_path / "file.prototxt").write_text(f'name: "File" {NET}')
    staged = (
        'layer { name: "staged" type: "Silence" bottom: "x" include { stage: "own" stage: "solver" } }'
        'layer { name: "deep" type: "Silence" bottom: "y" include { min_level: 2 } }'
    )
    made = get_solver(
        parse_text(
            f"""
        net: "{tmp_path}/net.prototxt" test_net: "{tmp_path}/file.prototxt"
        test_net_param {{ name: "Message" state {{ stage: "own" level: 3 }} {NET} {staged} }}
        test_iter: 1 test_iter: 1 test_iter: 1 test_iter: 1 test_interval: 1
        test_state {{ stage: "solver" }} test_state {{ phase: TRAIN }} test_state {{ }} test_state {{ level: 2 }}
        lr_policy: "fixed" base_lr: 0.1
    """,
            SolverParameter,
            "solver",
        )
    )
    assert [net.name for net in made.test_nets] == ["Message", "File", "Generic", "Generic"]
    assert {"staged", "deep"} <= {layer.param.name for layer in made.test_nets[0].layers}
    assert made.test_nets[1].phase == TRAIN
    made.step()
    moved = made.net.params["w"][0].item()
    assert moved != 1
    assert {net.params["w"][0].item() for net in made.test_nets} == {moved}


def test_weights_are_taken_from_every_file_named(tmp_path: Path) -> None:
    trained = solver("base_lr: 0.1")
    trained.step()
    trained.net.save(tmp_path / "first.caffemodel")
    trained.step()
    trained.net.save(tmp_path / "last.caffemodel")
    made = solver(f'weights: "{tmp_path}/first.caffemodel, {tmp_path}/last.caffemodel"')
    assert made.net.params["w"][0].item() == trained.net.params["w"][0].item()


def test_snapshots_are_named_after_the_prototxt_by_default(tmp_path: Path) -> None:
    path = tmp_path / "lenet_solver.prototxt"
    path.write_text("")
    assert read_solver(path).snapshot_prefix == str(tmp_path / "lenet_solver")
    path.write_text(f'snapshot_prefix: "{tmp_path}"')
    assert read_solver(path).snapshot_prefix == str(tmp_path / "lenet_solver")
    path.write_text(f'snapshot_prefix: "{tmp_path}/other"')
    assert read_solver(path).snapshot_prefix == f"{tmp_path}/other"


def test_layer_wise_reduce_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="pipeline"):
        solver("layer_wise_reduce: false")
    assert "layer_wise_reduce" in caplog.text


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ('lr_policy: "fixed"', [0.25, 0.5, 0.75, 1, 1, 1]),
        ('lr_policy: "poly" power: 1 max_iter: 8', [1 / 4, 7 / 8 / 2, 6 / 8 * 3 / 4, 5 / 8, 4 / 8, 3 / 8]),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 2', [0.25, 0.5, 0.375, 0.5, 0.5, 0.5]),
    ],
)
def test_the_rate_rises_to_its_policys_in_the_warm_up(fields: str, rates: list[float]) -> None:
    made = get_solver(parse_text(f"base_lr: 0.1 warmup_iter: 4 {fields} net_param {{ {NET} }}", SolverParameter, "s"))
    weight = 1.0
    for rate in rates:
        assert made.step() == pytest.approx(0.1 * rate)
        weight -= 0.1 * rate * 0.5 * 2 * (2 * weight - 5)
        assert made.net.params["w"][0].item() == pytest.approx(weight)


@pytest.mark.parametrize("fields", ["", "plateau_winsize: 5 plateau_patience: 1"])
def test_plateau_needs_one_measure_of_patience(fields: str) -> None:
    with pytest.raises(SolverError, match=r"either plateau_winsize .* or plateau_patience"):
        get_solver(parse_text(f'lr_policy: "plateau" {fields} net_param {{ {NET} }}', SolverParameter, "solver"))


def test_plateau_steps_when_the_training_loss_has_had_no_minimum_for_a_window() -> None:
    # At a rate this high the weight swings ever wider: after the first update no loss is lower than the first.
    made = get_solver(
        parse_text(
            f'lr_policy: "plateau" plateau_winsize: 3 plateau_winsize: 2 gamma: 0.5 base_lr: 2.2 net_param {{ {NET} }}',
            SolverParameter,
            "solver",
        )
    )
    rates = [made.step() for _ in range(8)]
    assert rates == pytest.approx([2.2] * 3 + [1.1] * 2 + [0.55] * 3)
