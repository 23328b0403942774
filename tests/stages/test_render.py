"""render: what stands in the rendered prototxts, and what is refused."""

import math
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.pictures import read_picture
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseError, DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.proto.blob_proto import read_mean, write_mean
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN
from pipeline.caffe.proto.files import BinaryError, PrototxtError, read_net, read_solver
from pipeline.classifier.objective import Objective
from pipeline.data import manifest
from pipeline.stages.render import MAX_TEST_BATCH, largest_divisor, render

NET = Path("prototxt/face_emotion_net")
LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
RECIPE: dict[str, Any] = {"epochs": 150, "batch_size": 64, "steps": (0.6, 0.85), "snapshot": "1000", "seed": 7}


def make_databases(
    folder: Path,
    *,
    train: int = 100,
    val: int = 74,
    test: int = 0,
    labels: tuple[str, ...] = LABELS,
    mean_size: int = 48,
) -> Path:
    """Databases of 48x48 grey images with the given numbers of records."""
    for name, count in (("train", train), ("val", val), ("test", test)):
        with DatabaseWriter(folder / f"{name}_lmdb") as database:
            for number in range(count):
                image = np.full((48, 48), number % 256, np.uint8)
                database.put(record_key(number, f"{number}.png"), datum_from_image(image, number % len(labels)))
    manifest.write_labels(folder / "labels.txt", labels)
    write_mean(folder / "mean.binaryproto", np.zeros((1, mean_size, mean_size), np.float32))
    return folder


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_databases(tmp_path_factory.mktemp("data") / "databases")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A copy of FaceEmotionNet's prototxts to spoil."""
    return Path(shutil.copytree(NET, tmp_path / "net"))


def spoil(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.DOTALL)
    assert count == 1
    path.write_text(text)


def test_fills_the_recipe_in(databases: Path, tmp_path: Path) -> None:
    render(NET, databases, tmp_path / "run", **RECIPE)
    solver = read_solver(tmp_path / "run/solver.prototxt")
    assert solver.net == f"{tmp_path}/run/train_val.prototxt"
    assert solver.max_iter == math.ceil(150 * 100 / 64)
    assert list(solver.stepvalue) == [round(0.6 * solver.max_iter), round(0.85 * solver.max_iter)]
    assert (solver.base_lr, solver.gamma, solver.momentum, solver.weight_decay) == pytest.approx((0.01, 0.1, 0.9, 5e-4))
    assert solver.snapshot_prefix == f"{tmp_path}/run/snapshots/face_emotion_net"
    assert (solver.snapshot, solver.random_seed) == (1000, 7)


def test_fills_both_data_layers_in(databases: Path, tmp_path: Path) -> None:
    render(NET, databases, tmp_path / "run", **RECIPE)
    layers = [layer for layer in read_net(tmp_path / "run/train_val.prototxt").layer if layer.type == "Data"]
    by_phase = {layer.include[0].phase: layer for layer in layers}
    assert by_phase[TRAIN].data_param.source == f"{databases}/train_lmdb"
    assert by_phase[TRAIN].data_param.batch_size == 64
    assert by_phase[TRAIN].transform_param.mirror
    assert by_phase[TEST].data_param.source == f"{databases}/val_lmdb"
    assert not by_phase[TEST].transform_param.mirror
    for layer in layers:
        assert layer.transform_param.crop_size == 42
        assert layer.transform_param.mean_file == f"{databases}/mean.binaryproto"


def test_counts_every_test_image_once(databases: Path, tmp_path: Path) -> None:
    render(NET, databases, tmp_path / "run", **RECIPE)
    layer = read_net(tmp_path / "run/train_val.prototxt").layer[1]
    assert read_solver(tmp_path / "run/solver.prototxt").test_iter[0] * layer.data_param.batch_size == 74


@given(st.integers(1, 40_000))
def test_largest_divisor_divides_and_none_is_larger(number: int) -> None:
    divisor = largest_divisor(number, MAX_TEST_BATCH)
    assert number % divisor == 0
    assert not any(number % larger == 0 for larger in range(divisor + 1, min(number, MAX_TEST_BATCH) + 1))


def test_measures_on_the_test_set_where_the_protocol_leaves_no_validation(tmp_path: Path) -> None:
    databases = make_databases(tmp_path / "merged", val=0, test=30)
    render(NET, databases, tmp_path / "run", **RECIPE)
    assert read_net(tmp_path / "run/train_val.prototxt").layer[1].data_param.source == f"{databases}/test_lmdb"


def test_takes_the_number_of_classes_from_labels(tmp_path: Path) -> None:
    databases = make_databases(tmp_path / "plus", labels=("neutral", "happy", "contempt"))
    render(NET, databases, tmp_path / "run", **RECIPE)
    for name in ("train_val", "deploy"):
        outputs = [
            layer.inner_product_param.num_output
            for layer in read_net(tmp_path / f"run/{name}.prototxt").layer
            if layer.type == "InnerProduct"
        ]
        assert outputs == [2048, 1024, 3]


def test_settings_stand_instead_of_the_prototxts_own(databases: Path, tmp_path: Path) -> None:
    render(NET, databases, tmp_path / "run", **RECIPE, crop_size=40, mirror=False, base_lr=0.002, display="5")
    solver = read_solver(tmp_path / "run/solver.prototxt")
    assert (solver.base_lr, solver.display, solver.test_interval) == (pytest.approx(0.002), 5, 1000)
    train = read_net(tmp_path / "run/train_val.prototxt").layer[0].transform_param
    assert (train.crop_size, train.mirror) == (40, False)
    assert list(read_net(tmp_path / "run/deploy.prototxt").layer[0].input_param.shape[0].dim) == [1, 1, 40, 40]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 10**9 * 2}, r"epochs 2000000000: \d+ iterations, where Caffe counts to 2147483647"),
        ({"epochs": 10**10}, "epochs 10000000000 where 1 to 2147483647 was expected"),
        ({"batch_size": 1 << 40}, "batch_size 1099511627776 where 1 to"),
        ({"batch_size": 0}, "batch_size 0 where 1 to"),
        ({"crop_size": 1 << 33}, "crop_size 8589934592 where 0 to"),
        ({"plateau_patience": 1 << 31}, "plateau_patience 2147483648 where 0 to"),
        ({"display": "99999999999"}, "display 99999999999: Caffe counts to 2147483647 iterations"),
        ({"snapshot": "999999999 epochs", "batch_size": 8}, "snapshot 999999999 epochs: Caffe counts to"),
    ],
)
def test_numbers_that_caffe_cannot_count_to_are_refused(
    databases: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        render(NET, databases, tmp_path / "run", **RECIPE | changed)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"plateau_patience": 3}, "plateau_patience 3: changes nothing with lr_policy 'multistep'; leave it out"),
        ({"lr_policy": "fixed", "gamma": 0.5}, "gamma 0.5: changes nothing with lr_policy 'fixed'; .* step or exp"),
        ({"power": 2.0}, "power 2.0: changes nothing with lr_policy 'multistep'; .* take lr_policy inv or poly"),
        ({"min_delta": 0.01}, "min_delta 0.01: changes nothing without early_stopping or plateau_patience"),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(
    databases: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        render(NET, databases, tmp_path / "run", **RECIPE | changed)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"early_stopping": 2, "min_delta": 0.01},
        {"lr_policy": "plateau", "gamma": 0.5, "plateau_patience": 3, "min_delta": 0.01},
        {"lr_policy": "inv", "gamma": 0.5, "power": 2.0},
    ],
)
def test_a_setting_that_changes_something_is_taken(databases: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    render(NET, databases, tmp_path / "run", **RECIPE | changed)


def test_the_deployed_net_is_given_the_scale_of_training(databases: Path, net: Path, tmp_path: Path) -> None:
    text = (net / "train_val.prototxt").read_text()
    (net / "train_val.prototxt").write_text(text.replace("crop_size: 42", "crop_size: 42 scale: 0.25"))
    render(net, databases, tmp_path / "run", **RECIPE)
    assert read_net(tmp_path / "run/deploy.prototxt").layer[0].transform_param.scale == 0.25


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (("train_val", r'type: "Pooling"', 'type "Pooling"'), r"train_val\.prototxt:\d+:\d+ ?: "),
        (("train_val", "pad: 2", "padding: 2"), r"train_val\.prototxt:\d+:\d+ ?: .*padding"),
        (("train_val", "phase: TEST", "phase: TRAIN"), "2 Data layers with include { phase: TRAIN } where one"),
        (("train_val", "crop_size: 42", "crop_size: 42 scale: 0.5"), "scale 0.5 in TRAIN and 1 in TEST"),
        (("train_val", "crop_size: 42", "crop_size: 50"), "crop_size 50 is larger than images of 48x48"),
        (("deploy", 'type: "Input"', 'type: "DummyData"'), "0 Input layers where one"),
        (("solver", "base_lr: 0.01", 'base_lr: "fast"'), r"solver\.prototxt:\d+:\d+ ?: "),
    ],
)
def test_refuses_unfit_prototxts_and_writes_nothing(
    databases: Path, net: Path, tmp_path: Path, spoilt: tuple[str, str, str], message: str
) -> None:
    spoil(net / f"{spoilt[0]}.prototxt", *spoilt[1:])
    with pytest.raises(PrototxtError, match=message) as caught:
        render(net, databases, tmp_path / "run", **RECIPE)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_refuses_a_net_without_a_classifier(databases: Path, net: Path, tmp_path: Path) -> None:
    text = (net / "deploy.prototxt").read_text().replace('"InnerProduct"', '"Flatten"')
    (net / "deploy.prototxt").write_text(text)
    with pytest.raises(PrototxtError, match=r"deploy\.prototxt: no InnerProduct"):
        render(net, databases, tmp_path / "run", **RECIPE)


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ({"mean_size": 42}, PrototxtError, r"mean\.binaryproto: a mean of shape \(1, 42, 42\).*\(1, 48, 48\)"),
        ({"train": 0}, InputError, "train_lmdb: no images to train on"),
        ({"val": 0}, InputError, "val_lmdb and test_lmdb are both empty"),
    ],
)
def test_refuses_unfit_databases(tmp_path: Path, sizes: dict[str, Any], error: type[Exception], message: str) -> None:
    databases = make_databases(tmp_path / "databases", **sizes)
    with pytest.raises(error, match=message):
        render(NET, databases, tmp_path / "run", **RECIPE)


def test_refuses_missing_and_broken_files(tmp_path: Path) -> None:
    databases = make_databases(tmp_path / "databases")
    (databases / "mean.binaryproto").write_bytes(b"\x08\x01\x10")
    with pytest.raises(BinaryError, match=r"mean\.binaryproto"):
        render(NET, databases, tmp_path / "run", **RECIPE)
    shutil.rmtree(databases / "val_lmdb")
    with pytest.raises(DatabaseError, match=r"val_lmdb: no data\.mdb"):
        render(NET, databases, tmp_path / "run", **RECIPE)
    with pytest.raises(FileNotFoundError, match=r"train_val\.prototxt"):
        render(tmp_path / "nowhere", databases, tmp_path / "run", **RECIPE)


@pytest.mark.parametrize("steps", [(0.85, 0.6), (0.6, 0.6), (0.0, 0.5), (0.5, 1.0)])
def test_refuses_steps_that_do_not_ascend(databases: Path, tmp_path: Path, steps: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="ascending shares"):
        render(NET, databases, tmp_path / "run", **RECIPE | {"steps": steps})


def test_augmentation_is_the_training_layers_alone_and_can_be_looked_at(databases: Path, tmp_path: Path) -> None:
    words = ["rotation=12", "erasing=0.2:0.5", "alternate_mirror"]
    render(NET, databases, tmp_path / "run", **RECIPE, augmentation=words)
    train, test = (
        layer.transform_param for layer in read_net(tmp_path / "run/train_val.prototxt").layer if layer.type == "Data"
    )
    assert not test.HasField("augmentation_param")
    param = train.augmentation_param
    assert (param.rotation, param.alternate_mirror) == (12, True)
    assert (param.erasing, param.erasing_probability) == pytest.approx((0.2, 0.5))
    sheet = read_picture(tmp_path / "run/augmentation.png", cv2.IMREAD_GRAYSCALE)
    assert sheet.shape == (2 * 10 * 42, 2 * (12 * 42 + 4))
    first = sheet[:84, :84]
    assert first.min() == first.max() == 0  # the first image as it is


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["spin=3"], "'spin=3'"),
        (["rotation"], "'rotation'"),
        (["zoom=2"], "zoom 2 where"),
        (["blur=1:2"], "blur_probability 2"),
        (["shift=a"], "'shift=a'"),
        (["rotation=3", "zoom=0.1", "rotation=9"], "'rotation=9': rotation is named twice"),
        (["alternate_mirror", "alternate_mirror"], "'alternate_mirror': alternate_mirror is named twice"),
    ],
)
def test_augmentation_that_is_impossible_is_refused(
    databases: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=f"augmentation: {said}"):
        render(NET, databases, tmp_path / "run", **RECIPE, augmentation=words)
    assert not (tmp_path / "run").exists()


def test_balanced_class_weights_come_from_the_training_set(databases: Path, tmp_path: Path) -> None:
    render(NET, databases, tmp_path / "run", **RECIPE, objective=Objective(class_weights=("balanced",)))
    matrix = read_mean(tmp_path / "run/infogain.binaryproto")[0]
    counts = [15, 15, 14, 14, 14, 14, 14]  # 100 images, labels counting around
    np.testing.assert_allclose(np.diag(matrix), [100 / (7 * count) for count in counts], rtol=1e-6)


@pytest.mark.parametrize("word", ["happy", "happy=x", "=2", "happy=-1", "happy=inf"])
def test_a_class_weight_that_is_none_is_refused(databases: Path, tmp_path: Path, word: str) -> None:
    with pytest.raises(InputError, match=f"class_weights: '{word}'"):
        render(NET, databases, tmp_path / "run", **RECIPE, objective=Objective(class_weights=(word,)))


def test_settings_choose_the_policy_and_the_warm_up(databases: Path, tmp_path: Path) -> None:
    render(NET, databases, tmp_path / "run", **RECIPE, lr_policy="poly", power=1.0, warmup="2.5 epochs")
    solver = read_solver(tmp_path / "run/solver.prototxt")
    assert (solver.lr_policy, solver.power, list(solver.stepvalue)) == ("poly", 1, [])
    assert solver.warmup_iter == round(2.5 * 100 / 64)
    render(NET, databases, tmp_path / "run", **RECIPE, warmup="30")
    assert read_solver(tmp_path / "run/solver.prototxt").warmup_iter == 30


def test_refuses_a_policy_without_its_numbers(databases: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"solver\.prototxt: lr_policy 'poly' without power; set it"):
        render(NET, databases, tmp_path / "run", **RECIPE, lr_policy="poly")


@pytest.mark.parametrize(
    ("train", "epochs", "asked", "expected"),
    [
        (100, 150, "1 epoch", (2, 236)),  # 1.5625 iterations an epoch, 234.4 in all
        (64, 20, "1 epoch", (1, 20)),
        (3, 20, "1 epoch", (1, 1)),
        (640, 10, "1 epoch", (10, 100)),
        (640, 10, "0.5 epochs", (5, 100)),
        (640, 15, "10 epochs", (75, 150)),
        (640, 10, "20 epochs", (100, 100)),
        (640, 10, "0.001 epochs", (1, 100)),
        (640, 10, "30", (30, 100)),
    ],
)
def test_tests_in_epochs_come_at_the_end_too(
    tmp_path: Path, train: int, epochs: int, asked: str, expected: tuple[int, int]
) -> None:
    databases = make_databases(tmp_path / "databases", train=train, val=2)
    render(NET, databases, tmp_path / "run", **RECIPE | {"epochs": epochs, "snapshot": asked}, test_interval=asked)
    solver = read_solver(tmp_path / "run/solver.prototxt")
    assert (solver.test_interval, solver.max_iter) == expected
    assert solver.snapshot == solver.test_interval or asked == "20 epochs"
    assert solver.max_iter % solver.test_interval == 0 or "epoch" not in asked


def test_refuses_snapshots_that_are_never_tested(databases: Path, tmp_path: Path) -> None:
    said = r"snapshot 16 and test_interval 1000 \(iterations\), where one was expected to be a multiple"
    with pytest.raises(InputError, match=said):
        render(NET, databases, tmp_path / "run", **RECIPE | {"snapshot": "10 epochs"})


@pytest.mark.parametrize("warmup", ["5 epoch s", "-1", "1.5", "epochs", "1e3 epochs"])
def test_refuses_what_is_no_duration(databases: Path, tmp_path: Path, warmup: str) -> None:
    with pytest.raises(InputError, match="where a number of iterations, or '5 epochs', was expected"):
        render(NET, databases, tmp_path / "run", **RECIPE, warmup=warmup)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fields", [{"early_stopping": 3}, {"lr_policy": "plateau", "plateau_patience": 2}])
def test_refuses_to_go_by_a_held_out_set_that_is_not_there(tmp_path: Path, fields: dict[str, Any]) -> None:
    databases = make_databases(tmp_path / "merged", val=0, test=30)
    with pytest.raises(InputError, match="val_lmdb is empty, so nothing is held out to go by"):
        render(NET, databases, tmp_path / "run", **RECIPE, **fields)
    assert not (tmp_path / "run").exists()


def test_fills_stopping_in(databases: Path, tmp_path: Path) -> None:
    render(NET, databases, tmp_path / "run", **RECIPE, early_stopping=5, test_metric="loss", min_delta=0.5)
    solver = read_solver(tmp_path / "run/solver.prototxt")
    assert (solver.early_stopping, solver.test_metric, solver.min_delta) == (5, "loss", 0.5)
