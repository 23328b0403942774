"""Averages of snapshots: what becomes of weights and of BatchNorm's statistics, and which snapshots are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.run_tool import run_tool

from pipeline.base.errors import InputError
from pipeline.caffe.averaging import average_snapshots
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, NetParameter, Phase
from pipeline.caffe.proto.files import parse_text
from pipeline.caffe.weights import WeightsError

NET = """
layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 4 dim: 2 dim: 3 dim: 5 }
  data_filler { type: "gaussian" mean: 2 std: 3 } } }
layer { name: "bn" type: "BatchNorm" bottom: "x" top: "bn" batch_norm_param { moving_average_fraction: 0.9 } }
layer { name: "fc" type: "InnerProduct" bottom: "bn" top: "fc" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
"""


def net(text: str = NET, phase: Phase = TRAIN, seed: int = 1) -> Net:
    return Net(parse_text(text, NetParameter, "net"), phase, seed=seed)


def snapshots(folder: Path, text: str = NET) -> list[Path]:
    """Three files of weights, the last of them HDF5, each after some batches of its own."""
    paths = [folder / "a.caffemodel", folder / "b.caffemodel", folder / "c.caffemodel.h5"]
    for seed, path in enumerate(paths):
        made = net(text, seed=10 + seed)
        for _ in range(seed + 1):
            made.forward()
        (made.save_hdf5 if path.suffix == ".h5" else made.save)(path)
    return paths


def test_weights_are_the_mean_of_the_snapshots(tmp_path: Path) -> None:
    paths = snapshots(tmp_path)
    averaged, one = net(), net()
    average_snapshots(averaged, paths, 1)
    arrays = []
    for path in paths:
        one.copy_from(path)
        arrays.append(one.params["fc"][0].detach().double().numpy())
    assert not np.allclose(arrays[0], arrays[1])
    np.testing.assert_allclose(averaged.params["fc"][0].detach().numpy(), np.mean(arrays, axis=0), rtol=1e-6)


def test_statistics_are_the_plain_averages_of_the_batches(tmp_path: Path) -> None:
    averaged, same_data = net(), net()
    average_snapshots(averaged, snapshots(tmp_path), 5)
    batches = []
    for _ in range(5):
        same_data.forward()
        batches.append(same_data.blobs["x"])
    mean, variance, factor = averaged.params["bn"]
    assert factor.item() == 5
    torch.testing.assert_close(mean / 5, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0))
    torch.testing.assert_close(variance / 5, torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0))
    # What trains on from there moves by the net's own fraction again.
    averaged.forward()
    assert averaged.params["bn"][2].item() == pytest.approx(0.9 * 5 + 1)


def test_statistics_that_training_leaves_alone_are_averaged_as_weights_are(tmp_path: Path) -> None:
    frozen = NET.replace("moving_average_fraction: 0.9", "use_global_stats: true")
    paths = snapshots(tmp_path)
    averaged, one = net(frozen), net(frozen)
    average_snapshots(averaged, paths, 5)
    sums = torch.zeros(2)
    for path in paths:
        one.copy_from(path)
        sums += one.params["bn"][0].detach()
    torch.testing.assert_close(averaged.params["bn"][0].detach(), sums / 3)


def test_a_net_without_batch_norm_reads_no_data(tmp_path: Path) -> None:
    text = NET.replace('bottom: "bn"', 'bottom: "x"').replace('type: "BatchNorm"', 'type: "ReLU"')
    text = text.replace("batch_norm_param { moving_average_fraction: 0.9 }", "")
    averaged = net(text)
    before = averaged.generator.get_state()
    average_snapshots(averaged, snapshots(tmp_path, text), 5)
    assert torch.equal(averaged.generator.get_state(), before)


@pytest.mark.parametrize("name", ["other.caffemodel", "other.caffemodel.h5"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name: "fc"', 'name: "classifier"', "the file has weights of layer 'classifier' where the net has none"),
        ('type: "BatchNorm"', 'type: "ReLU"', "the net has weights of layer 'bn' where the file has none"),
        ("num_output: 3", "num_output: 4", "shape .*4.* where"),
    ],
)
def test_snapshots_of_other_nets_are_refused(tmp_path: Path, name: str, old: str, new: str, said: str) -> None:
    text = NET.replace(old, new)
    if "ReLU" in text:
        text = text.replace("batch_norm_param { moving_average_fraction: 0.9 }", "")
    other = net(text)
    path = tmp_path / name
    (other.save_hdf5 if path.suffix == ".h5" else other.save)(path)
    paths = [*snapshots(tmp_path), path]
    (tmp_path / "net.prototxt").write_text(NET)
    with pytest.raises(InputError, match=said) as caught:
        run_tool("average_snapshots", "-model", tmp_path / "net.prototxt", *paths, tmp_path / "out.caffemodel")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.caffemodel").exists()


def test_the_tool_writes_the_average_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    paths = snapshots(tmp_path)
    for name in ("one", "two"):
        run_tool(
            "average_snapshots",
            "-model",
            tmp_path / "net.prototxt",
            "-iterations",
            3,
            *paths,
            tmp_path / f"{name}.caffemodel",
        )
    assert (tmp_path / "one.caffemodel").read_bytes() == (tmp_path / "two.caffemodel").read_bytes()
    written = net(phase=TEST)
    written.copy_from(tmp_path / "one.caffemodel")
    assert written.params["bn"][2].item() == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [(("a", "b"), "give -model FILE"), (("-model", "m", "-iterations", "0", "a", "b"), "-iterations 0")],
)
def test_the_tool_says_what_it_needs(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run_tool("average_snapshots", *words)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises((WeightsError, OSError), match=r"gone\.caffemodel"):
        average_snapshots(net(), [tmp_path / "gone.caffemodel"], 1)
