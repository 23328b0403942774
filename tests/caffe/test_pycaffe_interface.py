"""Caffe's Python interface where no comparison with Caffe reaches: what it refuses, and what is the engine's own."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import caffe
from pipeline.base.console import log
from pipeline.caffe import layers as L
from pipeline.caffe import params as P
from pipeline.caffe.blob import Blob, BlobError, Memory
from pipeline.caffe.common import ModeError, mode
from pipeline.caffe.io import ImageError
from pipeline.caffe.layers import LayerError
from pipeline.caffe.net_spec import NetSpecError
from pipeline.caffe.proto import caffe_pb2
from pipeline.caffe.proto.files import BinaryError, PrototxtError
from pipeline.caffe.pycaffe.net import CallError
from pipeline.caffe.solver import SolverError
from pipeline.caffe.weights import WeightsError

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 2 dim: 3 dim: 5 dim: 4 } shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modes and the log are the process's."""
    for name, value in vars(mode).items():
        monkeypatch.setattr(mode, name, value)
    monkeypatch.setattr(mode, "python_layers", False)
    handlers, level = list(log.handlers), log.level
    log.handlers = []
    yield
    log.handlers = handlers
    log.setLevel(level)


@pytest.fixture
def prototxt(tmp_path: Path) -> str:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return str(path)


@pytest.fixture
def solver_file(prototxt: str, tmp_path: Path) -> str:
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f'net: "{prototxt}" base_lr: 0.1 lr_policy: "fixed" max_iter: 3 display: 1 snapshot_prefix: "{tmp_path}/s"'
    )
    return str(path)


def test_importing_it_is_cheap() -> None:
    code = "import sys, pipeline.caffe as caffe; caffe.TEST, dir(caffe); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_name_is_there_and_what_is_not_says_why() -> None:
    for name in (
        "Net",
        "SGDSolver",
        "get_solver",
        "NetSpec",
        "Classifier",
        "Detector",
        "Layer",
        "TRAIN",
        "io",
        "proto",
        "set_mode_cpu",
        "layer_type_list",
        "to_proto",
        "init_log",
    ):
        assert getattr(caffe, name) is not None
        assert name in dir(caffe)
    assert not {"Any", "_NAMES"} & {*dir(caffe)}
    assert {"Convolution", "Python"} < {*dir(L)}
    assert "Pooling" in dir(P)
    assert all(getattr(P, name) for name in dir(P))
    assert caffe.proto.caffe_pb2.NetParameter().ByteSize() == 0
    assert not caffe.has_nccl()
    with pytest.raises(AttributeError, match="'NCCL', which Caffe has: a script trains"):
        _ = caffe.NCCL
    with pytest.raises(AttributeError, match=r"no attribute 'nix'$"):
        _ = caffe.nix


def test_what_a_net_cannot_be_asked_is_named(prototxt: str) -> None:
    net = caffe.Net(prototxt, caffe.TEST)
    with pytest.raises(CallError, match="no layer is named 'nix'; the net has data, conv, fc, loss"):
        net.forward(end="nix")
    with pytest.raises(CallError, match="no blob is named 'nix'; the net has data, label, conv"):
        net.forward(blobs=["nix"])
    with pytest.raises(KeyError, match="'nix' is none of data, label, conv, fc, loss"):
        _ = net.blobs["nix"]
    with pytest.raises(KeyError, match="'nix' is none of conv, fc"):
        _ = net.params["nix"]
    with pytest.raises(CallError, match=r"blobs=ndarray where a list of blobs' names .* forward\(data=array\)"):
        net.forward(np.zeros((2, 3, 5, 4)))
    with pytest.raises(CallError, match="diffs=str where"):
        net.backward(diffs="conv")
    with pytest.raises(CallError, match="arrays for data where the net's inputs are data, label"):
        net.forward(data=np.zeros((2, 3, 5, 4)))
    with pytest.raises(CallError, match=r"'data' of shape \(3, 3, 5, 4\) where the blob has shape \(2, 3, 5, 4\)"):
        net.forward(data=np.zeros((3, 3, 5, 4)), label=np.zeros(2))
    with pytest.raises(CallError, match=r"'data' of shape \(2, 7\)"):
        net.forward(data=np.zeros((2, 7)), label=np.zeros(2))
    with pytest.raises(CallError, match="arrays for nix where the net's outputs are loss"):
        net.backward(nix=np.zeros(1))
    with pytest.raises(CallError, match="arrays of 2, 4 items"):
        net.forward_all(data=np.zeros((4, 3, 5, 4)), label=np.zeros(2))
    with pytest.raises(CallError, match="first layer is MemoryData; it is Input"):
        net.set_input_arrays(np.zeros((2, 3, 5, 4)), np.zeros(2))
    with pytest.raises(AttributeError):
        net.blobs["data"].data = np.zeros((2, 3, 5, 4))


def test_a_net_is_made_from_files_that_are_there_and_fit(prototxt: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"nix\.prototxt"):
        caffe.Net("nix.prototxt", caffe.TEST)
    with pytest.raises(OSError, match=r"nix\.caffemodel"):
        caffe.Net(prototxt, "nix.caffemodel", caffe.TEST)
    for arguments in ((), ("TEST",), (None, caffe.TEST)):
        with pytest.raises(TypeError, match="Net takes a prototxt and a phase"):
            caffe.Net(prototxt, *arguments)
    (tmp_path / "other.prototxt").write_text(NET.replace("num_output: 4", "num_output: 5"))
    caffe.Net(str(tmp_path / "other.prototxt"), caffe.TEST).save(str(tmp_path / "other.caffemodel"))
    with pytest.raises(WeightsError, match=r"layer 'conv' blob 0 has shape \(5, 3, 3, 3\)"):
        caffe.Net(prototxt, str(tmp_path / "other.caffemodel"), caffe.TEST)


def test_backward_before_forward_is_that_of_what_stands_in_the_blobs(prototxt: str) -> None:
    net = caffe.Net(prototxt, caffe.TRAIN)
    net.blobs["conv"].data[...] = 0.5
    net.blobs["fc"].diff[...] = 2
    net.backward(start="fc", end="fc")
    assert np.allclose(net.params["fc"][0].diff, 2 * 2 * 0.5)  # of two items
    assert np.allclose(net.blobs["conv"].diff.reshape(2, -1), 2 * net.params["fc"][0].data.sum(0))
    assert not net.blobs["fc"].data.any()


def test_backward_is_that_of_the_shapes_that_blobs_have_now(prototxt: str) -> None:
    net = caffe.Net(prototxt, caffe.TRAIN)
    net.forward()
    net.blobs["data"].reshape(3, 3, 5, 4)
    net.blobs["label"].reshape(3)
    net.reshape()
    net.blobs["fc"].diff[...] = 1
    net.blobs["conv"].data[...] = 0.5
    net.backward(start="fc", end="conv")
    assert net.blobs["conv"].diff.shape[0] == 3
    assert np.allclose(net.params["fc"][0].diff, 3 * 0.5)


@pytest.mark.parametrize("looked_at_before", [False, True])
def test_what_is_written_between_forward_and_backward_counts(prototxt: str, looked_at_before: bool) -> None:
    net = caffe.Net(prototxt, caffe.TRAIN)
    held = net.blobs["conv"].data if looked_at_before else None
    net.blobs["data"].data[...] = np.random.default_rng(0).random((2, 3, 5, 4))
    net.forward()
    net.blobs["conv"].data[...] = 0.5
    net.params["fc"][0].data[...] = 3
    net.blobs["fc"].diff[...] = 1
    net.backward(start="fc", end="fc")
    assert np.allclose(net.params["fc"][0].diff, 2 * 0.5)
    assert np.allclose(net.blobs["conv"].diff, 3 * 3)
    if held is not None:
        net.forward()
        assert held.max() != 0.5
        assert np.array_equal(held, net.blobs["conv"].data)


def test_a_blob_that_is_another_as_it_was_keeps_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("""
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "drop" type: "Dropout" bottom: "data" top: "drop" }
layer { name: "power" type: "Power" bottom: "drop" top: "power" power_param { scale: 2 } }
""")
    net = caffe.Net(str(path), caffe.TEST)
    net.blobs["data"].data[...] = 1
    net.forward()
    net.blobs["data"].data[...] = 7
    assert net.blobs["drop"].data.max() == 1


def test_levels_and_stages_choose_layers(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        NET + 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" include { stage: "deploy" min_level: 2 } }'
    )
    assert "prob" not in caffe.Net(str(path), caffe.TEST, stages=["deploy"]).blobs
    assert "prob" in caffe.Net(str(path), caffe.TEST, 2, ["deploy"]).blobs


def test_weights_that_do_not_fit_a_new_shape_are_named_and_stay(prototxt: str) -> None:
    net = caffe.Net(prototxt, caffe.TEST)
    before = net.params["fc"][0].data.copy()
    net.blobs["data"].reshape(2, 3, 7, 4)
    with pytest.raises(LayerError, match=r"layer 'fc': blob 0 of shape \(3, 24\) where .* need \(3, 40\)"):
        net.reshape()
    net.blobs["data"].reshape(2, 3, 5, 4)
    net.reshape()
    net.forward()
    assert np.array_equal(net.params["fc"][0].data, before)
    with pytest.raises(BlobError, match=r"shape \(2, -1\)"):
        net.blobs["data"].reshape(2, -1)
    with pytest.raises(BlobError, match="2147483647 values"):
        net.blobs["data"].reshape(2**20, 2**20)
    with pytest.raises(TypeError):
        net.blobs["data"].reshape((2, 3))


def test_debug_info_tells_of_a_shared_weight_at_each_of_its_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.prototxt").write_text("""
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 2 dim: 1 }
        data_filler { type: "constant" value: 3 } } }
layer { name: "one" type: "InnerProduct" bottom: "data" top: "one" param { name: "w" }
        inner_product_param { num_output: 1 bias_term: false weight_filler { type: "constant" value: 2 } } }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "two" param { name: "w" }
        inner_product_param { num_output: 1 bias_term: false } }
layer { name: "sum" type: "Reduction" bottom: "two" top: "sum" loss_weight: 1 }
""")
    path = tmp_path / "solver.prototxt"
    path.write_text(f'net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" display: 1 debug_info: true')
    caffe.get_solver(str(path)).step(1)
    said = capsys.readouterr().err
    # The sum is that of 3 w w over two items: 6 w = 12 from the second layer, and as much from the first.
    assert "[Backward] Layer two, param blob 0 diff: 12\n" in said
    assert "[Backward] Layer one, param blob 0 diff: 24\n" in said


def test_a_seed_decides_what_nets_made_after_it_draw(prototxt: str, solver_file: str) -> None:
    def draw() -> list[np.ndarray]:
        caffe.set_random_seed(5)
        nets = [caffe.Net(prototxt, caffe.TEST), caffe.Net(prototxt, caffe.TEST), caffe.SGDSolver(solver_file).net]
        return [net.params["conv"][0].data.copy() for net in nets]

    first, second = draw(), draw()
    assert all(map(np.array_equal, first, second))
    assert not np.array_equal(first[0], first[1])


def test_a_solver_logs_in_glogs_form_and_counts(solver_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    solver = caffe.AdamSolver(solver_file)
    assert type(caffe.get_solver(solver_file)).__name__ == "SGDSolver"
    assert solver.type == "Adam"
    solver.step(2)
    assert solver.iter == 2
    solver.net.params["fc"][0].data[...] = 0
    solver.solve()
    said = capsys.readouterr().err
    assert "] Solving small\n" in said
    assert "] Iteration 1 (" in said
    assert "] Optimization Done.\n" in said
    assert solver.iter == 3
    assert Path(solver_file).with_name("s_iter_3.solverstate").exists()


def test_the_log_may_be_silenced(
    solver_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "2")
    caffe.get_solver(solver_file).step(1)
    assert capsys.readouterr().err == ""


def test_init_log_shows_how_nets_are_built(prototxt: str, capsys: pytest.CaptureFixture[str]) -> None:
    caffe.init_log()
    caffe.Net(prototxt, caffe.TEST)
    assert "] Creating layer conv\n" in capsys.readouterr().err
    assert log.level == logging.DEBUG


def test_a_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ModeError, match="GPU 0 where torch finds none on this machine; call set_mode_cpu"):
        caffe.set_mode_gpu()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ModeError, match="GPU 2 where torch finds 2"):
        caffe.set_device(2)
    caffe.set_device(1)
    caffe.set_mode_gpu()
    assert mode.device() == "cuda:1"
    caffe.set_mode_cpu()
    assert mode.device() == "cpu"
    for refused in (
        lambda: caffe.set_solver_count(2),
        lambda: caffe.set_solver_rank(1),
        lambda: caffe.set_multiprocess(True),
    ):
        with pytest.raises(ModeError, match="one GPU or the CPU"):
            refused()


class TwoSided(Memory):
    """Memory whose device is not the host, as a GPU's: here both are on the CPU."""

    class Elsewhere:
        """A device that torch allocates on the CPU, but of another type."""

        type = "elsewhere"

    def __init__(self, count: int) -> None:
        super().__init__(count, torch.device("cpu"))
        self._there = torch.zeros(count)
        self.device = self.Elsewhere()  # type: ignore[assignment]


def test_numbers_on_a_device_are_moved_to_whoever_asks() -> None:
    memory = TwoSided(3)
    memory.tensor().copy_(torch.tensor([1.0, 2, 3]))
    array = memory.array()
    assert array.tolist() == [1, 2, 3]
    array[0] = 7  # the host's are the newest
    assert memory.array().tolist() == [7, 2, 3]
    assert memory.tensor().tolist() == [7, 2, 3]
    memory.tensor()[1] = 8
    assert array.tolist() == [7, 2, 3]  # moved when they are asked for
    assert memory.array().tolist() == [7, 8, 3]
    assert array.tolist() == [7, 8, 3]  # and always to the same place


@pytest.mark.parametrize("kind", [TwoSided, lambda count: Memory(count, torch.device("cpu"))])
def test_what_is_put_is_copied_when_somebody_asks(kind: Callable[[int], Memory]) -> None:
    memory, turned = kind(6), torch.arange(6.0).view(3, 2).t()
    memory.put(turned)
    assert memory.newest((2, 3)).data_ptr() == turned.data_ptr()
    assert memory.newest((5,)).tolist() == [0, 2, 4, 1, 3]  # another count: in Caffe's order
    array = memory.array()
    assert array.tolist() == [0, 2, 4, 1, 3, 5]
    array[5] = 9
    memory.put(torch.tensor([7.0, 8]))
    assert memory.array().tolist() == [7, 8, 4, 1, 3, 9]
    assert array.tolist() == [7, 8, 4, 1, 3, 9]
    assert turned[0, 0] == 0


def test_a_blob_of_more_than_four_axes_has_no_height() -> None:
    blob = Blob((1, 2, 3, 4, 5), torch.device("cpu"))
    assert blob.shape[4] == 5
    with pytest.raises(BlobError, match="use shape"):
        _ = blob.height


LAYERS = """
import pipeline.caffe as caffe
class Double(caffe.Layer):
    def setup(self, bottom, top): self.seen = self.param_str
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * top[0].diff
class Adder(caffe.Layer):
    def setup(self, bottom, top): self.blobs.add_blob(2); self.blobs[0].data[...] = 4
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top): top[0].data[...] = bottom[0].data + self.blobs[0].data.sum()
    def backward(self, top, propagate_down, bottom): self.blobs[0].diff[...] += 1
class Idle(caffe.Layer):
    pass
class Loose:
    pass
"""


@pytest.fixture
def python_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "layers_of_the_user.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "python.prototxt").write_text(
        "force_backward: true "
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } } '
        'layer { name: "it" type: "Python" bottom: "data" top: "it" '
        'python_param { module: "layers_of_the_user" layer: "Double" param_str: "seen" } }'
    )
    yield str(tmp_path / "python.prototxt")
    sys.modules.pop("layers_of_the_user", None)


def test_python_layers_run_only_where_they_are_allowed(python_net: str) -> None:
    with pytest.raises(
        PrototxtError,
        match=r"prototxt:1: layer 'it': Python layers run code .* call "
        r"allow_python_layers\(\) first",
    ):
        caffe.Net(python_net, caffe.TEST)
    assert "layers_of_the_user" not in sys.modules
    caffe.allow_python_layers()
    net = caffe.Net(python_net, caffe.TEST)
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(net.forward(data=given)["it"], 2 * given)
    assert np.array_equal(net.backward(it=given)["data"], 2 * given)
    assert net.layers[1].seen == "seen"
    assert net.layers[1].type == "Python"
    net.blobs["data"].reshape(4, 3)
    net.reshape()
    assert net.blobs["it"].shape == (4, 3)


def test_a_python_layers_blobs_are_the_nets(python_net: str, tmp_path: Path) -> None:
    caffe.allow_python_layers()
    Path(python_net).write_text(Path(python_net).read_text().replace("Double", "Adder"))
    net, other = caffe.Net(python_net, caffe.TRAIN), caffe.Net(python_net, caffe.TRAIN)
    net.params["it"][0].data[...] = 7
    assert net.layers[1].blobs[0].data.tolist() == [7, 7]
    assert net.forward()["it"].max() == 14
    net.save(str(tmp_path / "it.caffemodel"))
    other.copy_from(str(tmp_path / "it.caffemodel"))
    assert other.layers[1].blobs[0].data.tolist() == [7, 7]
    for _ in range(2):
        net.backward()
    assert net.params["it"][0].diff.tolist() == [2, 2]
    assert net.layers[1].blobs[0].diff.tolist() == [2, 2]
    net.clear_param_diffs()
    assert not net.layers[1].blobs[0].diff.any()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (('module: "layers_of_the_user"', 'module: "nowhere_to_be_found"'), "No module named 'nowhere_to_be_found'"),
        (('module: "layers_of_the_user"', 'module: ""'), "module '' where the name of one was expected"),
        (('module: "layers_of_the_user"', 'module: ".layers"'), "module '.layers' where"),
        (
            ('module: "layers_of_the_user"', 'module: "layers_of_the_user.more"'),
            "'layers_of_the_user' is not a package",
        ),
        (('layer: "Double"', 'layer: "Triple"'), "no layer 'Triple' in module 'layers_of_the_user'"),
        (('layer: "Double"', 'layer: "Loose"'), "'Loose' in module 'layers_of_the_user' is no class made from"),
    ],
)
def test_a_python_layer_that_is_none_is_named(python_net: str, changed: tuple[str, str], said: str) -> None:
    caffe.allow_python_layers()
    Path(python_net).write_text(Path(python_net).read_text().replace(*changed))
    with pytest.raises(PrototxtError, match=said):
        caffe.Net(python_net, caffe.TEST)


def test_what_goes_wrong_in_a_users_module_comes_through(python_net: str) -> None:
    caffe.allow_python_layers()
    module = Path(python_net).with_name("layers_of_the_user.py")
    for line, error in (("import nix.nowhere", ModuleNotFoundError), ("float.nix", AttributeError)):
        module.write_text(line)
        with pytest.raises(error) as raised:
            caffe.Net(python_net, caffe.TEST)
        assert any(entry.path == module for entry in raised.traceback)


def test_a_python_layer_lacks_what_it_must_have(python_net: str) -> None:
    caffe.allow_python_layers()
    Path(python_net).write_text(Path(python_net).read_text().replace("Double", "Idle"))
    with pytest.raises(NotImplementedError, match=r"Idle has no reshape\(bottom, top\)"):
        caffe.Net(python_net, caffe.TEST)


def test_a_net_spec_refuses_what_makes_no_layer() -> None:
    data = L.Input(shape={"dim": [1, 2]})
    with pytest.raises(NetSpecError, match="ReLU was given int as its bottom 0"):
        L.ReLU(3)
    with pytest.raises(NetSpecError, match=r"'ReLU1' \(ReLU\): foo=3: LayerParameter has no field 'foo'"):
        caffe.to_proto(L.ReLU(data, foo=3))
    with pytest.raises(NetSpecError, match="negative_slope='a'"):
        caffe.to_proto(L.ReLU(data, negative_slope="a"))
    with pytest.raises(NetSpecError, match="in_place has 2 bottoms and 1 tops"):
        caffe.to_proto(L.Eltwise(data, data, in_place=True))
    with pytest.raises(AttributeError, match="no attribute 'nix'; layer types are AbsVal"):
        L.nix(data)
    with pytest.raises(AttributeError, match="Caffe has no NixParameter"):
        _ = P.Nix
    with pytest.raises(AttributeError, match="no blob 'nix'"):
        _ = caffe.NetSpec().nix


def test_a_net_spec_may_be_deep() -> None:
    top = L.Input(shape={"dim": [1, 2]})
    for _ in range(2000):
        top = L.ReLU(top)
    assert len(caffe.to_proto(top).layer) == 2001


def test_pictures_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"picture\.png: cannot identify image file"):
        caffe.io.load_image(path)
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"picture\.png: .*; a picture was expected"):
        caffe.io.load_image(path)
    with pytest.raises(ImageError, match="interp_order 2 where 0, 1, 3"):
        caffe.io.resize_image(np.random.default_rng(0).random((4, 4, 3)), (2, 2), 2)
    with pytest.raises(ImageError, match="crops of 5x4 where the images have 4x4"):
        caffe.io.oversample([np.zeros((4, 4, 3))], (5, 4))


def test_a_message_without_a_shape_is_a_number() -> None:
    assert caffe.io.blobproto_to_array(caffe.proto.caffe_pb2.BlobProto(data=[123])) == 123
    with pytest.raises(BinaryError, match="2 values where shape"):
        caffe.io.blobproto_to_array(caffe.proto.caffe_pb2.BlobProto(data=[1, 2]))


def test_messages_that_do_not_hold_their_shape_are_refused() -> None:
    pb2 = caffe.proto.caffe_pb2
    with pytest.raises(ImageError, match=r"2 values where its shape says \(1, 2, 3\)"):
        caffe.io.datum_to_array(pb2.Datum(channels=1, height=2, width=3, data=b"ab"))
    with pytest.raises(ImageError, match="encoded"):
        caffe.io.datum_to_array(pb2.Datum(encoded=True, data=b"ab"))
    with pytest.raises(ImageError, match=r"\(2, 2\) where \(C, H, W\)"):
        caffe.io.array_to_datum(np.zeros((2, 2)))


def test_a_transformer_leaves_what_it_is_given_alone() -> None:
    transformer = caffe.io.Transformer({"data": (1, 3, 4, 5)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_raw_scale("data", 255)
    image = np.full((4, 5, 3), 0.5, np.float32)
    assert transformer.preprocess("data", image).max() == 127.5
    assert image.max() == 0.5  # Caffe's own would have scaled it in place
    with pytest.raises(ImageError, match="'nix' is none of the inputs data"):
        transformer.preprocess("nix", image)
    with pytest.raises(ImageError, match=r"shape \(9, 9\) where \(H, W, K\) was expected"):
        transformer.preprocess("data", np.zeros((9, 9)))
    transformer.set_mean("data", np.full((3, 9, 9), 100))
    assert np.array_equal(transformer.mean["data"], np.full((3, 4, 5), 100))


@pytest.fixture
def deploy(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "deploy.prototxt"
    path.write_text("""
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "means" type: "Pooling" bottom: "data" top: "means" pooling_param { pool: AVE global_pooling: true } }
""")
    caffe.Net(str(path), caffe.TEST).save(str(tmp_path / "deploy.caffemodel"))
    return str(path), str(tmp_path / "deploy.caffemodel")


def test_a_detector_shows_what_surrounds_a_window_and_the_mean_beyond(deploy: tuple[str, str], tmp_path: Path) -> None:
    mean = np.array([30, 60, 90.0])
    detector = caffe.Detector(*deploy, mean=mean, raw_scale=255, channel_swap=(2, 1, 0), context_pad=2)
    image = np.zeros((40, 40, 3), np.float32)
    image[12:28, 12:28] = 1
    crop = detector.crop(image, (12, 12, 27, 27))  # 16 pixels in 4 of 8: as many again on each side
    assert crop.shape == (8, 8, 3)
    assert crop[3:5, 3:5].min() > 0.99
    assert crop[0].max() < 0.3
    corner = detector.crop(np.ones((40, 40, 3), np.float32), (0, 0, 15, 15))
    assert np.allclose(corner[0, 0], mean[::-1] / 255)  # beyond the image stands the mean, red first
    assert np.allclose(corner[5, 5], 1, atol=0.01)
    Image.fromarray(np.full((40, 40, 3), 255, np.uint8)).save(tmp_path / "white.png")
    found = detector.detect_windows([(tmp_path / "white.png", [(10, 10, 20, 20), (5, 5, 30, 30)])])
    assert [detection["window"] for detection in found] == [(10, 10, 20, 20), (5, 5, 30, 30)]
    assert found[0]["prediction"].shape == (3, 1, 1)
    with pytest.raises(ImageError, match=r"window \(50, 50, 60, 60\) where"):
        detector.crop(image, (50, 50, 60, 60))
    with pytest.raises(ImageError, match=r"window \(20, 20, 10, 30\) where"):
        caffe.Detector(*deploy).crop(image, (20, 20, 10, 30))
    with pytest.raises(ImageError, match="selective search is a MATLAB package"):
        detector.detect_selective_search(["white.png"])
    assert detector.detect_windows([]) == []


def test_a_classifier_takes_a_list_of_images(deploy: tuple[str, str]) -> None:
    classifier = caffe.Classifier(*deploy)
    image = np.full((9, 9, 3), 0.5)
    assert np.allclose(classifier.predict([image, 2 * image]), [[0.5], [1.0]])
    with pytest.raises(ImageError, match=r"shape \(9, 3\) where \(H, W, K\) was expected; Classifier\.predict"):
        classifier.predict(image)
    with pytest.raises(ImageError, match=r"shape \(\) where"):
        classifier.predict(["cat.png"])
    with pytest.raises(ImageError, match="no images"):
        classifier.predict([])


def test_what_a_script_changes_in_the_solvers_message_holds_from_then_on(solver_file: str) -> None:
    changed, fresh = (caffe.SGDSolver(solver_file) for _ in range(2))
    for solver in (changed, fresh):
        for blobs in solver.net.params.values():
            for blob in blobs:
                blob.data[...] = 0.1
        solver.net.blobs["data"].data[...] = np.arange(120).reshape(2, 3, 5, 4) / 100
        solver.net.blobs["label"].data[...] = 1
    changed.step(1)
    first = changed.net.params["fc"][0].diff.copy()
    changed.param.base_lr /= 4
    changed.param.momentum = 0
    assert changed.lr == pytest.approx(0.025)
    changed.step(1)
    fresh.step(1)
    np.testing.assert_array_equal(first, fresh.net.params["fc"][0].diff)
    for solver in (fresh,):
        solver.net.clear_param_diffs()
        solver.net.forward()
        solver.net.backward()
    gradient = fresh.net.params["fc"][0].diff
    np.testing.assert_allclose(changed.net.params["fc"][0].diff, gradient * np.float32(0.025), rtol=1e-5)
    changed.param.average_loss = 5
    changed.step(2)
    assert len(changed._solver.losses) == 4 - 1  # those since then and the last before
    changed.param.lr_policy = "none"
    with pytest.raises(SolverError, match="lr_policy 'none'"):
        changed.step(1)


UNEDITED = """
import caffe, caffe.io, caffe.draw, caffe.proto.caffe_pb2
import caffe._caffe
from caffe.proto.caffe_pb2 import NetParameter, SolverParameter
from caffe.proto import caffe_pb2
from caffe import layers as L, params as P
from caffe.net_spec import assign_proto
import numpy, sys
import helper

assert caffe.proto.caffe_pb2 is caffe_pb2 and isinstance(L.ReLU(L.Input()).to_proto(), NetParameter)
assert caffe.Net is caffe._caffe.Net is helper.Net and caffe.io.Transformer and P.Pooling.MAX == 0
caffe.log("a line")
net = caffe.Net("net.prototxt", caffe.TEST)
print(type(net).__module__, sys.argv, [len(net._blobs), net._inputs, net._outputs, net._bottom_ids(3), net._top_ids(0)])
"""


def test_a_script_runs_unedited(prototxt: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNEDITED)
    (tmp_path / "helper.py").write_text("from caffe import Net\n")
    expected = "pipeline.caffe.pycaffe.net ['script.py', 'x'] [5, [0, 1], [4], [3, 1], [0, 1]]\n"
    shim = [sys.executable, "-m", "pipeline.caffe.shim"]
    folder = subprocess.run(shim, capture_output=True, text=True, check=True).stdout.strip()
    root = str(Path(folder).parents[2])
    for command, path in (([*shim, "script.py", "x"], root), ([sys.executable, "script.py", "x"], f"{folder}:{root}")):
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_modules_of_messages_are_imported_as_in_caffe() -> None:
    import pipeline.caffe.proto.files.caffe_pb2  # noqa: F401

    from pipeline.caffe.proto.caffe_pb2 import NetParameter

    assert NetParameter is caffe_pb2.NetParameter
    assert caffe._caffe.Net is caffe.Net
    message = NetParameter()
    caffe.net_spec.assign_proto(message, "layer", [{"name": "a"}])
    assert message.layer[0].name == "a"
    assert caffe.net_spec.layers is L


def test_errors_are_of_the_types_that_they_have_in_caffe(prototxt: str) -> None:
    net = caffe.Net(prototxt, caffe.TEST)
    for expected, call in [
        (RuntimeError, lambda: caffe.Net("nothing.prototxt", caffe.TEST)),
        (RuntimeError, lambda: caffe.Net(prototxt, "nothing.caffemodel", caffe.TEST)),
        (RuntimeError, lambda: net.set_input_arrays(np.zeros((2, 3, 5, 4), "f"), np.zeros(2, "f"))),
        (ValueError, lambda: net.forward(end="nothing")),
        (ValueError, lambda: net.forward(data=np.zeros((2, 1, 5, 4)), label=np.zeros((3, 7)))),
        (KeyError, lambda: net.forward(blobs=["nothing"])),
        (KeyError, lambda: net.blobs["nothing"]),
        (TypeError, lambda: L.ReLU(3)),
        (TypeError, lambda: L.ReLU(L.Input(), negative_slope="x").to_proto()),
        (AttributeError, lambda: L.ReLU(L.Input(), negativ_slope=1).to_proto()),
        (AttributeError, lambda: L.Foo(foo_param={"a": 1}).to_proto()),
        (AssertionError, lambda: caffe.coord_map.crop(L.Convolution(data := L.Input(), kernel_size=2), data)),
    ]:
        with pytest.raises(expected):
            call()


def test_a_type_that_is_not_here_can_be_written_down() -> None:
    assert L.Foo(ntop=1).to_proto().layer[0].type == "Foo"
