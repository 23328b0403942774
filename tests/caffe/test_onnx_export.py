"""The command export_onnx: what it writes and measures, and what it says of bad input."""

import logging
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.net import build_net
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.caffe.proto.caffe_pb2 import TEST, Datum
from pipeline.caffe.tools import export_onnx
from pipeline.caffe.tools.flags import FlagParser

DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
        inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 0.001 } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
CONVOLUTIONAL = DEPLOY[: DEPLOY.index('layer { name: "fc"')]
TRAIN_VAL = """
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
        transform_param {{ mirror: true crop_size: 8 mean_value: 120 scale: 0.5 }}
        data_param {{ source: "{0}/train_lmdb" batch_size: 2 backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
        transform_param {{ crop_size: 8 mean_value: 120 scale: 0.5 }}
        data_param {{ source: "{0}/test_lmdb" batch_size: 2 backend: LMDB }} }}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A net with weights, its mean, and databases of larger images to train and test on."""
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    (tmp_path / "convolutional.prototxt").write_text(CONVOLUTIONAL)
    (tmp_path / "train_val.prototxt").write_text(TRAIN_VAL.format(tmp_path))
    build_net(tmp_path / "deploy.prototxt", TEST, seed=1).save(tmp_path / "net.caffemodel")
    random = np.random.default_rng(0)
    write_mean(tmp_path / "mean.binaryproto", random.uniform(100, 140, (3, 10, 12)).astype("f"))
    for name, count in (("train_lmdb", 40), ("test_lmdb", 21)):
        with DatabaseWriter(tmp_path / name) as database:
            for index in range(count):
                image = random.integers(0, 256, (3, 10, 12), dtype=np.uint8)
                database.put(record_key(index, "x"), datum_from_image(image, index % 4))
    return tmp_path


def export(folder: Path, *flags: str, deploy: str = "deploy", weights: str = "net.caffemodel") -> onnx.ModelProto:
    """Run the command with `flags`, in which DIR stands for the folder."""
    parser = FlagParser()
    export_onnx.add_arguments(parser)
    words = [f"DIR/{deploy}.prototxt", f"DIR/{weights}", "DIR/net.onnx"]
    args = parser.parse([word.replace("DIR", str(folder)) for word in (*words, *flags)])
    export_onnx.run(args)
    return onnx.load(folder / "net.onnx")


def runtime(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "pipeline")
    return caplog


def test_mean_and_scale_in_the_graph_are_those_of_the_data_layer(folder: Path, log: pytest.LogCaptureFixture) -> None:
    raw = export(folder, "-mean=120", "-scale=0.5", "-input=uint8", "-test=DIR/test_lmdb")
    inside = [message for message in log.messages if "accuracy" in message]
    log.clear()
    plain = export(folder, "-train_val=DIR/train_val.prototxt", "-test", "DIR/test_lmdb")
    assert inside == [message for message in log.messages if "accuracy" in message] != []
    images = np.random.default_rng(1).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    (a,) = runtime(raw).run(None, {"data": images})
    (b,) = runtime(plain).run(None, {"data": (images.astype("f") - 120) * np.float32(0.5)})
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_mean_image_is_cut_to_its_centre(folder: Path, log: pytest.LogCaptureFixture) -> None:
    model = export(folder, "-mean", "DIR/mean.binaryproto", "-channel_swap", "2,1,0")
    assert "of its 10x12 the centre 8x8" in log.text
    assert runtime(model).get_inputs()[0].shape[1:] == [3, 8, 8]


def test_int8_tells_its_images_and_what_it_costs(folder: Path, log: pytest.LogCaptureFixture) -> None:
    flags = ("-precision=int8", "-mean=120", "-batches=2", "-batch_size=8", "-test=DIR/test_lmdb")
    small = export(folder, *flags, "-calibration=DIR/train_lmdb")
    assert f"the first 16 images of {folder}/train_lmdb" in log.text
    assert f"int8 against float32 on 21 images of {folder}/test_lmdb" in log.text
    assert "accuracy on 21 images" in log.text
    assert ", int8 0." in log.text
    assert re.search(r"net\.onnx: int8, opset 17, 0\.\d\d MB, \d+% of float32's 0\.\d\d MB", log.text)
    assert small.SerializeToString() == export(folder, *flags, "-calibration=DIR/train_lmdb").SerializeToString()
    assert runtime(small).get_inputs()[0].shape[0] == "data:axis0"


def test_int8_by_the_data_layers_of_the_net(folder: Path, log: pytest.LogCaptureFixture) -> None:
    export(folder, "-precision=int8", "-train_val=DIR/train_val.prototxt", "-batches=1", "-batch_size=40")
    assert f"the first 40 images of {folder}/train_lmdb" in log.text
    assert "drawn inputs" in log.text


def test_images_seen_twice_are_told(folder: Path, log: pytest.LogCaptureFixture) -> None:
    (folder / "train_lmdb").rename(folder / "same_lmdb")
    with DatabaseWriter(folder / "train_lmdb") as database:
        image = np.full((3, 10, 12), 7, np.uint8)
        database.put(record_key(0, "x"), datum_from_image(image, 1))
    with DatabaseWriter(folder / "other_lmdb") as database:
        database.put(record_key(0, "x"), datum_from_image(image, 1))
        database.put(record_key(1, "x"), datum_from_image(255 - image, 1))
    export(folder, "-precision=int8", "-mean=120", "-calibration=DIR/train_lmdb", "-test=DIR/other_lmdb")
    assert f"1 images of {folder}/other_lmdb are among those that int8's ranges are of" in log.text


def test_without_labels_only_the_deviation(folder: Path, log: pytest.LogCaptureFixture) -> None:
    with DatabaseWriter(folder / "plain_lmdb") as database:
        image = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
        database.put(record_key(0, "x"), Datum(channels=3, height=8, width=8, data=image.tobytes()))
    export(folder, "-precision=float16", "-test=DIR/plain_lmdb")
    assert "the same class of 1 of them" in log.text
    assert "no accuracy: the images have no labels" in log.text


def test_a_convolutional_net_keeps_its_size_on_demand(folder: Path) -> None:
    assert runtime(export(folder, deploy="convolutional")).get_inputs()[0].shape == [
        "data:axis0",
        3,
        "data:axis2",
        "data:axis3",
    ]
    fixed = export(folder, "-fixed_size", deploy="convolutional")
    assert runtime(fixed).get_inputs()[0].shape == ["data:axis0", 3, 8, 8]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-precision=int4"], "-precision int4 where float32, float16, int8 were expected"),
        (["-precision=int8"], "needs images that show how large activations become: give -calibration"),
        (["-precision=int8", "-calibration=DIR/nothing"], "DIR/nothing: no data.mdb inside"),
        (["-precision=int8", "-calibration=DIR/test_lmdb", "-test=DIR/../NAME/test_lmdb"], "on the same images"),
        (["-calibration=DIR/train_lmdb"], "-calibration is for -precision int8"),
        (["-mean=1,2"], r"a mean of shape \(2, 1, 1\) where input 'data' takes images of \(3, 8, 8\)"),
        (["-mean=DIR/absent.binaryproto"], "no such file, and no numbers"),
        (["-channel_swap=0,0,1"], "channel_swap 0,0,1 where the 3 channels"),
        (["-channel_swap=0,1.5,2"], "channel_swap 0,1.5,2: no whole numbers"),
        (["-mean=1", "-train_val=DIR/train_val.prototxt"], "give the one or the other"),
        (["-test=DIR/test_lmdb", "-classes=best"], "no output 'best' where prob are; give one of them as -classes"),
        (["-batches=0"], "-batches 0 where at least 1"),
        (["-input=int16"], "-input int16 where float32, uint8"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(folder: Path, flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("DIR", str(folder))) as error:
        export(folder, *(flag.replace("NAME", folder.name) for flag in flags))
    assert "\n" not in str(error.value)
    assert not (folder / "net.onnx").exists()


def test_files_that_do_not_belong_together_are_one_line(folder: Path) -> None:
    with pytest.raises(InputError, match=r"train_val\.prototxt: no Input layer.*give the deploy prototxt"):
        export(folder, deploy="train_val")
    build_net(folder / "convolutional.prototxt", TEST).save(folder / "half.caffemodel")
    with pytest.raises(InputError, match=r"half\.caffemodel: no weights of layer 'fc' of"):
        export(folder, weights="half.caffemodel")
    loss = (
        DEPLOY
        + """
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 1 } } }
layer { name: "hinge" type: "HingeLoss" bottom: "prob" bottom: "label" top: "loss" }"""
    )
    (folder / "loss.prototxt").write_text(loss)
    last = loss.count("\n") + 1
    with pytest.raises(InputError, match=f"loss.prototxt:{last}: layer 'hinge': HingeLoss has no ONNX form here"):
        export(folder, deploy="loss")
    own = 'layer { name: "own" type: "Python" bottom: "prob" top: "own" python_param { module: "m" layer: "L" } }'
    (folder / "own.prototxt").write_text(DEPLOY + own)
    with pytest.raises(InputError, match="layer 'own': Python has no ONNX form here"):
        export(folder, deploy="own")
    with DatabaseWriter(folder / "small_lmdb") as database:
        database.put(record_key(0, "x"), datum_from_image(np.zeros((3, 4, 4), np.uint8), 0))
    with pytest.raises(InputError, match=r"images of shape \(3, 4, 4\) where net '' takes \(3, 8, 8\)"):
        export(folder, "-test=DIR/small_lmdb")
    with DatabaseWriter(folder / "many_lmdb") as database:
        database.put(record_key(0, "x"), datum_from_image(np.zeros((3, 8, 8), np.uint8), 9))
    with pytest.raises(InputError, match="label 9 where output 'prob' has 4 classes"):
        export(folder, "-test=DIR/many_lmdb")
    assert not (folder / "net.onnx").exists()
