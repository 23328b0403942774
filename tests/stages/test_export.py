"""export and the model folder: what is written answers as the engine does, and only what is whole is read."""

import argparse
import json
import math
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from helpers.small_set import noise
from helpers.trained_net import TrainedNet, make_trained_net, probabilities_by_hand, write_deploy, write_weights
from onnx import numpy_helper
from safetensors.numpy import load_file

import pipeline.caffe.onnx
from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto.caffe_pb2 import TEST, NetParameter
from pipeline.caffe.proto.files import parse_text
from pipeline.classifier import model_folder
from pipeline.classifier.calibration import calibrate
from pipeline.classifier.class_prior import ClassPriorError
from pipeline.classifier.fine_tuning import read_layer_blobs
from pipeline.classifier.model_folder import Classifier, ModelError, read
from pipeline.classifier.views import ViewsError
from pipeline.stages.export import add_arguments


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNet:
    return make_trained_net(noise(40), tmp_path_factory.mktemp("trained"))


def held_out(trained: TrainedNet) -> np.ndarray:
    with DatabaseReader(trained.databases / "val_lmdb") as reader:
        return np.stack([datum_to_array(datum, "it") for _, datum in reader])


def reseal(folder: Path, name: str) -> None:
    """Enter the file's hash in model.json as if it had been exported so."""
    index = json.loads((folder / "model.json").read_text())
    index["sha256"][name] = sha256(folder / name)
    (folder / "model.json").write_text(json.dumps(index))


def test_a_net_that_takes_any_size_is_served(trained: TrainedNet, tmp_path: Path) -> None:
    deploy = tmp_path / "deploy.prototxt"
    deploy.write_text("""name: "Global"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 42 dim: 42 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 8 kernel_size: 3 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "scores" type: "InnerProduct" bottom: "pool" top: "scores" inner_product_param { num_output: 7 } }
layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }
""")
    weights = write_weights(deploy, tmp_path / "weights.caffemodel")
    trained.export(tmp_path / "model", deploy=deploy, weights=weights)
    assert Classifier(read(tmp_path / "model"))(noise(3)[:, None]).shape == (3, 7)


def test_a_float32_model_answers_as_the_net(trained: TrainedNet, tmp_path: Path) -> None:
    index = trained.export(tmp_path / "model", version="2", name="Small one")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == set(model_folder.FILES)
    assert set(index["sha256"]) == names - {"model.json"}
    assert index["greatest_difference_from_engine"] < 1e-4
    folder = read(tmp_path / "model")
    assert (folder.name, folder.version, folder.labels[3]) == ("Small one", "2", "happy")
    images = held_out(trained)
    np.testing.assert_allclose(Classifier(folder)(images), probabilities_by_hand(trained, images[:, 0]), atol=1e-4)
    assert (tmp_path / "model/weights.caffemodel").read_bytes() == trained.weights.read_bytes()
    net = build_net(tmp_path / "model/deploy.prototxt", TEST)
    net.copy_from(trained.weights)
    blobs = {f"{name}.{place}": blob for name, several in net.params.items() for place, blob in enumerate(several)}
    tensors = load_file(tmp_path / "model/weights.safetensors")
    assert set(tensors) == set(blobs)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, blobs[name].detach().numpy())


def test_serving_prepares_an_image_as_the_data_layer_does(trained: TrainedNet, tmp_path: Path) -> None:
    deploy = tmp_path / "deploy.prototxt"
    write_deploy(deploy, scale=0.25)
    trained.export(tmp_path / "model", deploy=deploy)
    text = f"""layer {{ name: "data" type: "Data" top: "data" top: "label"
        transform_param {{ crop_size: 42 scale: 0.25 mean_file: "{trained.mean}" mirror: false }}
        data_param {{ source: "{trained.databases / "val_lmdb"}" backend: LMDB batch_size: 8 }} }}"""
    net = Net(parse_text(text, NetParameter, "data"), TEST)
    net.forward()
    served = read(tmp_path / "model").transformer()(held_out(trained))
    np.testing.assert_array_equal(served, net.blobs["data"].numpy())


def test_int8_is_smaller_measured_and_keeps_the_weights_in_half_precision(trained: TrainedNet, tmp_path: Path) -> None:
    trained.export(tmp_path / "float32")
    index = trained.export(tmp_path / "int8", precision="int8")
    sizes = [(tmp_path / precision / "model.onnx").stat().st_size for precision in ("float32", "int8")]
    assert sizes[1] < 0.35 * sizes[0]
    assert not (tmp_path / "int8/weights.caffemodel").exists()
    whole, half = (read_layer_blobs(tmp_path / name / "weights.safetensors") for name in ("float32", "int8"))
    assert whole.keys() == half.keys()
    for layer, blobs in whole.items():
        for exact, kept in zip(blobs, half[layer], strict=True):
            np.testing.assert_allclose(kept, exact, rtol=1e-3 if exact.ndim > 1 else 0, atol=1e-7)
    images = held_out(trained)
    answers = [Classifier(read(tmp_path / precision))(images) for precision in ("float32", "int8")]
    assert index["int8"]["greatest_difference"] == pytest.approx(np.abs(answers[0] - answers[1]).max(), abs=1e-4)
    assert 0 < index["int8"]["greatest_difference"] < 0.1
    assert index["int8"]["images"] == len(images)
    assert index["int8"]["bytes_int8"] == sizes[1]
    assert index["int8"]["bytes_float32"] == sizes[0]
    assert "int8" in (tmp_path / "int8/MODEL_CARD.md").read_text()


def test_two_exports_are_the_same_to_the_byte(trained: TrainedNet, tmp_path: Path) -> None:
    first, second = (trained.export(tmp_path / name, precision="int8") for name in ("a", "b"))
    assert first == second


def test_metrics_and_run_reach_index_and_card(trained: TrainedNet, tmp_path: Path) -> None:
    metrics = trained.evaluate(tmp_path / "run")
    (tmp_path / "run/run.json").write_text('{"seed": 1, "sha256": {}}')
    given = {"metrics": tmp_path / "run/metrics.json", "record": tmp_path / "run/run.json", "license_name": "mit"}
    index = trained.export(tmp_path / "model", **given)
    assert index["license"] == "mit"
    assert index["metrics"]["val"]["accuracy"] == metrics["val"]["accuracy"]
    assert index["training"] == {"seed": 1, "sha256": {}}
    assert read(tmp_path / "model").temperature == metrics["temperature"] == index["temperature"]
    images = held_out(trained)
    probabilities = probabilities_by_hand(trained, images[:, 0])
    shares = np.array(list(metrics["training_shares"].values()))
    for prior, power in ((None, metrics["class_prior"]), ("training", 0), (0.3, 0.3), ("uniform", 1)):
        served = calibrate(probabilities, metrics["temperature"], shares**-power)
        answer = Classifier(read(tmp_path / "model"), class_prior=prior)(images)
        np.testing.assert_allclose(answer, served, atol=1e-4)
    card = (tmp_path / "model/MODEL_CARD.md").read_text()
    assert f"accuracy {metrics['test']['accuracy']:.2%}" in card
    assert "surprise" in card
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["license"], head["pipeline_tag"]) == ("mit", "image-classification")
    (entry,) = head["model-index"]
    values = {result["dataset"]["type"]: result["metrics"][0]["value"] for result in entry["results"]}
    assert values == {part: metrics[part]["accuracy"] for part in ("val", "test")}


@pytest.mark.parametrize("said", ["{}", '{"accuracy": 0.7}', '{"sha256": 5}', '{"sha256": {}, "earlier": [1]}'])
def test_a_record_of_no_training_is_refused(trained: TrainedNet, tmp_path: Path, said: str) -> None:
    (tmp_path / "run.json").write_text(said)
    with pytest.raises(InputError, match=r"run\.json: not what train writes; train again, .* or leave --run out"):
        trained.export(tmp_path / "model", record=tmp_path / "run.json")
    assert not (tmp_path / "model").exists()


def test_a_net_that_was_measured_without_a_val_set_is_exported(tmp_path: Path) -> None:
    trained = make_trained_net(noise(40), tmp_path, protocol="merged")
    measured = trained.evaluate(tmp_path / "run", views=2)
    index = trained.export(tmp_path / "model", metrics=tmp_path / "run/metrics.json")
    assert index["metrics"]["test"]["accuracy"] == measured["test"]["accuracy"]
    assert read(tmp_path / "model").temperature == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 99.0}, "temperature: "),
        ({"class_prior": None}, "class_prior: "),
        ({"training_shares": {"happy": 1.0}}, "training_shares of other labels than angry, .*; evaluate the net again"),
    ],
)
def test_damaged_metrics_are_named_by_their_own_file(
    trained: TrainedNet, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    metrics = trained.evaluate(tmp_path / "run")
    (tmp_path / "run/metrics.json").write_text(json.dumps(metrics | changed))
    with pytest.raises(InputError, match=rf"run/metrics\.json: {message}"):
        trained.export(tmp_path / "model", metrics=tmp_path / "run/metrics.json")


def test_views_are_calibrated_by_their_own_temperature(trained: TrainedNet, tmp_path: Path) -> None:
    metrics = trained.evaluate(tmp_path / "run", views=10)
    assert [row["views"] for row in metrics["val"]["views"]] == [1, 2, 10]
    trained.export(tmp_path / "model", metrics=tmp_path / "run/metrics.json")
    folder = read(tmp_path / "model")
    assert set(folder.view_temperatures) == {2, 10}
    images = held_out(trained)
    answer = Classifier(folder, views=2, class_prior="training")(images)
    net = folder.transformer()(images)
    session = Classifier.session(folder.read_onnx())
    raw = session.run(None, {"data": net})[0]
    flipped = session.run(None, {"data": np.ascontiguousarray(net[..., ::-1])})[0]
    np.testing.assert_allclose(answer, calibrate((raw + flipped) / 2, folder.view_temperatures[2]), atol=1e-5)
    assert "| 10 |" in (tmp_path / "model/MODEL_CARD.md").read_text()


def test_views_that_were_not_measured_are_refused(trained: TrainedNet, tmp_path: Path) -> None:
    trained.evaluate(tmp_path / "run")
    trained.export(tmp_path / "model", metrics=tmp_path / "run/metrics.json")
    with pytest.raises(ViewsError, match=r"views 10 were not measured.*evaluate with views 10"):
        Classifier(read(tmp_path / "model"), views=10)


def test_metrics_of_an_older_pipeline_are_refused(trained: TrainedNet, tmp_path: Path) -> None:
    metrics = trained.evaluate(tmp_path / "run")
    del metrics["training_shares"]
    (tmp_path / "old.json").write_text(json.dumps(metrics))
    with pytest.raises(InputError, match=r"old\.json: no training_shares.*evaluate the net again"):
        trained.export(tmp_path / "model", metrics=tmp_path / "old.json")


def test_a_model_without_training_shares_takes_no_other_prior(trained: TrainedNet, tmp_path: Path) -> None:
    trained.export(tmp_path / "model")
    Classifier(read(tmp_path / "model"), class_prior="training")
    with pytest.raises(ClassPriorError, match=r"model\.json: no training_shares"):
        Classifier(read(tmp_path / "model"), class_prior="uniform")


def test_an_onnx_form_that_differs_is_not_written(
    trained: TrainedNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.export(tmp_path / "model")
    before = sha256(tmp_path / "model/model.onnx")
    right = pipeline.caffe.onnx.to_onnx

    def wrong(net: Net, **options: bool) -> onnx.ModelProto:
        model = right(net, **options)
        weight = model.graph.initializer[-1]
        weight.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(weight) + np.arange(7, dtype=np.float32), weight.name)
        )
        return model

    monkeypatch.setattr(pipeline.caffe.onnx, "to_onnx", wrong)
    with pytest.raises(InputError, match=r"differs from the engine by .* on random images"):
        trained.export(tmp_path / "model")
    assert sha256(tmp_path / "model/model.onnx") == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_does_not_belong_together_is_refused(trained: TrainedNet, tmp_path: Path) -> None:
    trained.evaluate(tmp_path / "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    metrics["val"]["per_class"].pop()
    (tmp_path / "fewer.json").write_text(json.dumps(metrics))
    (tmp_path / "torn.json").write_text('{"val": ')
    eight = write_deploy(tmp_path / "eight.prototxt", classes=8)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    cases = (
        ({"metrics": tmp_path / "fewer.json"}, "fewer.json: val has other classes"),
        ({"metrics": tmp_path / "torn.json"}, "torn.json: no JSON"),
        ({"deploy": eight, "weights": write_weights(eight, tmp_path / "8.caffemodel")}, "8 classes .* names 7"),
        ({"weights": tmp_path / "absent.caffemodel"}, "absent.caffemodel"),
    )
    for changed, message in cases:
        with pytest.raises((InputError, OSError), match=message):
            trained.export(tmp_path / "model", **changed)
        assert not (tmp_path / "model").exists()
    with pytest.raises(InputError, match=r"thesis\.txt"):
        trained.export(tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").exists()


def test_a_folder_that_is_not_whole_is_not_read(trained: TrainedNet, tmp_path: Path) -> None:
    good = tmp_path / "model"
    trained.export(good)
    read(good)
    for name in model_folder.FILES:
        damaged = tmp_path / f"damaged {name}"
        shutil.copytree(good, damaged)
        data = (damaged / name).read_bytes()
        (damaged / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(ModelError, match=name):
            read(damaged)
        (damaged / name).unlink()
        with pytest.raises(ModelError, match=name):
            read(damaged)
    with pytest.raises(ModelError, match=r"no model\.json inside"):
        read(tmp_path / "nowhere")


def test_a_temperature_that_is_none_is_refused(trained: TrainedNet, tmp_path: Path) -> None:
    trained.export(tmp_path / "model")
    for wrong in (-1.0, "2", float("inf")):
        index = json.loads((tmp_path / "model/model.json").read_text())
        (tmp_path / "model/model.json").write_text(json.dumps(index | {"temperature": wrong}))
        with pytest.raises(ModelError, match="temperature"):
            read(tmp_path / "model")


@pytest.fixture(scope="module")
def exported(trained: TrainedNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    trained.export(folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A model folder to change."""
    return shutil.copytree(exported, tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channels", 2),
        ("channels", True),
        ("height", 0),
        ("width", 1 << 40),
        ("width", 48.5),
        ("crop_size", -5),
        ("crop_size", 49),
        ("crop_size", None),
        ("scale", math.inf),
        ("scale", math.nan),
        ("scale", 0),
        ("scale", -1.0),
        ("scale", 1e-300),
        ("scale", "1"),
        ("faces", "cropped"),
        ("faces", ["aligned"]),
        ("faces", None),
    ],
)
def test_preprocessing_out_of_its_range_is_refused(folder: Path, name: str, value: object) -> None:
    fields = json.loads((folder / "preprocessing.json").read_text())
    (folder / "preprocessing.json").write_text(json.dumps(fields | {name: value}))
    reseal(folder, "preprocessing.json")
    with pytest.raises(
        ModelError, match=rf"preprocessing\.json: ({name}|no JSON) .* was expected.* export the model again"
    ):
        read(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": 1e-300},
        {"temperature": 1e300},
        {"temperature": 0},
        {"temperature": []},
        {"view_temperatures": [1.0]},
        {"view_temperatures": {"2": 1e-9}},
    ],
)
def test_temperatures_out_of_their_range_are_refused(folder: Path, changed: dict[str, object]) -> None:
    index = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(index | changed))
    with pytest.raises(ModelError, match=r"model\.json: (temperature|view_temperatures) "):
        read(folder)


@pytest.mark.parametrize("name", ["name", "version"])
@pytest.mark.parametrize("value", [None, 4, True, "", "two\nlines", "\ud800", "x" * 201])
def test_names_that_cannot_be_shown_are_refused(folder: Path, name: str, value: object) -> None:
    index = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(index | {name: value}))
    with pytest.raises(ModelError, match=rf"model\.json: {name} .{{1,100}} where a text of 1 to 200 printable") as told:
        read(folder)
    assert "\n" not in str(told.value)


FIRST_SEVEN = """start = Constant<value_ints=[0]>() end = Constant<value_ints=[7]>() axis = Constant<value_ints=[1]>()
flat = Flatten(data) prob = Slice(flat, start, end, axis)"""


@pytest.mark.parametrize(
    ("signature", "body", "message"),
    [
        ("(float[N,1,42,42] data, float[1] more) => (float[N,7] prob)", FIRST_SEVEN, "takes data of .* and more of"),
        ("(double[N,1,42,42] data) => (double[N,7] prob)", FIRST_SEVEN, r"takes data of shape .* tensor\(double\)"),
        ("(float[4,1,42,42] data) => (float[4,7] prob)", FIRST_SEVEN, r"takes data of shape \(4, 1, 42, 42\)"),
        ("(float[N,1,42,42] data) => (float prob)", "prob = ReduceMean<keepdims=0>(data)", r"gives prob of shape \(\)"),
        (
            "(float[N,1,42,42] data) => (float[N,1,42,42] prob)",
            "prob = Relu(data)",
            r"gives prob of shape \('N', 1, 42",
        ),
        (
            "(float[N,1,42,42] data) => (float[N,7] prob, float[N,7] class_maps)",
            f"{FIRST_SEVEN} class_maps = Relu(prob)",
            r"gives class_maps of shape \('N', 7\), tensor\(float\) where float of shape \('N', 7, 'h', 'w'\) was",
        ),
    ],
)
def test_a_net_of_other_inputs_or_outputs_is_refused(folder: Path, signature: str, body: str, message: str) -> None:
    text = f'<ir_version: 8, opset_import: ["": 17]> net {signature} {{ {body} }}'
    onnx.save(onnx.parser.parse_model(text), folder / "model.onnx")
    reseal(folder, "model.onnx")
    with pytest.raises(ModelError, match=rf"model\.onnx: {message}"):
        Classifier(read(folder))


def test_a_file_that_is_not_listed_is_refused(folder: Path) -> None:
    (folder / ".DS_Store").touch()  # a file browser's, which nothing reads
    read(folder)
    index = json.loads((folder / "model.json").read_text())
    for name in ("weights.bin", "weights.caffemodel"):
        listed = index | {"sha256": {file: sha for file, sha in index["sha256"].items() if file != name}}
        (folder / "model.json").write_text(json.dumps(listed))
        (folder / name).touch()
        with pytest.raises(ModelError, match=rf"model/{name}: model\.json does not list it"):
            read(folder)
        if name == "weights.bin":
            (folder / name).unlink()


@pytest.mark.parametrize("name", ["../labels.txt", "/etc/hostname", "sub/../labels.txt", "other.txt"])
def test_a_list_of_other_files_is_refused(folder: Path, name: str) -> None:
    index = json.loads((folder / "model.json").read_text())
    index["sha256"][name] = "0" * 64
    (folder / "model.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model\.json: lists '.*', which is no file of a model"):
        read(folder)


def test_weights_in_another_file_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though model.json has the right hash of the file that names it."""
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, tmp_path / "outside.onnx", save_as_external_data=True, location="outside.bin", size_threshold=0)
    shutil.copyfile(tmp_path / "outside.onnx", folder / "model.onnx")
    reseal(folder, "model.onnx")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"model\.onnx: the weights '.*' are in another file, 'outside\.bin'"):
        Classifier(read(folder))


def test_a_net_that_changes_after_it_was_looked_at_is_refused(folder: Path) -> None:
    found = read(folder)
    found.onnx.write_bytes(found.onnx.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"model\.onnx: its sha256 is not the one in model\.json"):
        Classifier(found)


def test_class_shares_that_are_none_are_refused(trained: TrainedNet, tmp_path: Path) -> None:
    metrics = trained.evaluate(tmp_path / "run")
    trained.export(tmp_path / "model", metrics=tmp_path / "run/metrics.json")
    whole = json.loads((tmp_path / "model/model.json").read_text())
    shares = metrics["training_shares"]
    for changed, message in (
        ({"class_prior": 2.0}, "class_prior 2.0, not a number from 0 to 1"),
        ({"class_prior": "half"}, "class_prior 'half'"),
        ({"training_shares": {"happy": 1.0}}, "training_shares of other labels"),
        ({"training_shares": [1.0]}, "training_shares of other labels"),
        ({"training_shares": shares | {"happy": 0.0}}, "training_shares that are no shares"),
        ({"training_shares": shares | {"happy": "many"}}, "training_shares that are no shares"),
    ):
        (tmp_path / "model/model.json").write_text(json.dumps(whole | changed))
        with pytest.raises(ModelError, match=message):
            read(tmp_path / "model")


def test_files_that_contradict_one_another_are_not_used(trained: TrainedNet, tmp_path: Path) -> None:
    trained.export(tmp_path / "model")
    for name, text, message in (
        ("labels.txt", "happy\nsad\n", "gives 7 probabilities where labels.txt names 2"),
        (
            "preprocessing.json",
            (tmp_path / "model/preprocessing.json").read_text().replace("42", "40"),
            "takes data of shape",
        ),
        ("preprocessing.json", '{"size": 48}', "preprocessing.json: .*'size'"),
        ("model.onnx", "weights", "model.onnx: "),
    ):
        folder = tmp_path / "changed"
        shutil.copytree(tmp_path / "model", folder)
        (folder / name).write_text(text)
        reseal(folder, name)
        with pytest.raises(InputError, match=message):
            Classifier(read(folder))
        shutil.rmtree(folder)


def test_who_looks_for_the_static_page_is_told_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["fast", "--web", "site"])
    assert "python -m pipeline web MODEL FOLDER" in capsys.readouterr().err
