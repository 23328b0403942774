"""extract_features: a record for each index of a blob, and what is refused."""

from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from helpers.run_tool import run_tool

from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseReader, DatabaseWriter, datum_from_image, datum_to_array
from pipeline.caffe.net import build_net
from pipeline.caffe.proto.caffe_pb2 import TEST

NET = """
layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "lmdb" batch_size: 2 backend: LMDB } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
layer { name: "deep" type: "Reshape" bottom: "fc" top: "deep"
        reshape_param { shape { dim: 0 dim: 1 dim: 1 dim: 1 dim: 3 } } }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A net, its weights and its database of three images."""
    (tmp_path / "net.prototxt").write_text(NET)
    with DatabaseWriter(tmp_path / "lmdb") as database:
        for number in range(3):
            database.put(b"%d" % number, datum_from_image(np.full((1, 2, 2), number, np.uint8), number))
    with chdir(tmp_path):
        build_net(Path("net.prototxt"), TEST, seed=1).save(Path("net.caffemodel"))
    return tmp_path


def extract(folder: Path, *arguments: object) -> None:
    with chdir(folder):
        run_tool("extract_features", "net.caffemodel", "net.prototxt", *arguments)


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_each_blob_has_a_database(folder: Path, backend: str) -> None:
    extract(folder, "data,fc,loss", "a,b,c", 3, backend, "CPU")
    with chdir(folder):
        net = build_net(Path("net.prototxt"), TEST)
        net.copy_from(Path("net.caffemodel"))
        batches = [
            {name: blob.detach().numpy() for name, blob in (net.forward(), net.blobs)[1].items()} for _ in range(3)
        ]
    for name, blob, shape in (("a", "data", (1, 2, 2)), ("b", "fc", (3, 1, 1)), ("c", "loss", (1, 1, 1))):
        with DatabaseReader(folder / name, backend) as database:
            records = list(database)
        wanted = np.concatenate([batch[blob].reshape(-1, *shape) for batch in batches])
        assert [key for key, _ in records] == [b"%010d" % number for number in range(len(wanted))]
        assert np.array_equal([datum_to_array(datum, "") for _, datum in records], wanted)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nose", "a", 1, "lmdb"), "unknown blob 'nose'; net '' has data, label, fc, loss, deep$"),
        (("fc,data", "a", 1, "lmdb"), "2 blobs .* and 1 databases"),
        (("fc,data", "a,a", 1, "lmdb"), "one for each blob"),
        (("fc", "lmdb", 1, "lmdb"), "lmdb: exists already"),
        (("fc,data", "a,lmdb", 1, "lmdb"), "lmdb: exists already"),
        (("deep", "a", 1, "lmdb"), r"blob 'deep' has shape \(2, 1, 1, 1, 3\), where at most 4 axes"),
        (("fc", "a", 0, "lmdb"), "num_mini_batches '0'"),
        (("fc", "a", "many", "lmdb"), "num_mini_batches 'many'"),
        (("fc", "a", 1, "hdf5"), "backend 'hdf5'"),
        (("fc", "a", 1, "lmdb", "TPU"), "'TPU 0' where CPU"),
        (("fc", "a", 1, "lmdb", "GPU", "99"), "GPU 99: there are"),
    ],
)
def test_bad_input_is_an_error_and_leaves_nothing(folder: Path, arguments: tuple[object, ...], error: str) -> None:
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(InputError, match=error):
        extract(folder, *arguments)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_net_without_data_is_refused(folder: Path) -> None:
    (folder / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 } } }'
        'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 3 } }'
    )
    with pytest.raises(InputError, match="has the inputs x, where a data layer"):
        extract(folder, "fc", "a", 1, "lmdb")
