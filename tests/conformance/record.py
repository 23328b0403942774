"""What real Caffe answers. Runs in its own Python, inside the root that CAFFE_ROOT names; caffe_root.py calls it.

    record.py cases FOLDER                  every FOLDER/LayerType/case.prototxt -> FOLDER/LayerType/recorded.npz
    record.py net NET CASE OUT              a prototxt with the numbers of CASE -> tops and all gradients
    record.py outputs NET CASE OUT          a prototxt with the numbers of CASE -> its outputs
    record.py solve STEPS FROM NAME...      iterate every NAME.solver.prototxt from a .caffemodel or .solverstate, "{}"
                                            in FROM being NAME -> NAME.npz: losses, and the parameters at the end; a
                                            snapshot is left where the solver says
    record.py database LMDB OUT             raw Datums, read by python3-lmdb -> keys, labels, images

OUT is an .npz.
"""

import sys
from pathlib import Path

import caffe
import h5py
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from values import Values, all_cases, forwards


def parameters(net) -> dict:
    """Every parameter blob of a net by (layer, index)."""
    return {(layer, index): blob for layer, blobs in net.params.items() for index, blob in enumerate(blobs)}


def draw_parameters(net, values: Values) -> None:
    types = {name: net.layers[index].type for index, name in enumerate(net._layer_names)}
    for (layer, index), blob in parameters(net).items():
        blob.data[...] = values.parameter(layer, types[layer], index, tuple(blob.shape))


def run_net(path: Path, case: str, every_gradient: bool = False) -> dict:
    """Forward and backward of one net.

    Keys: top/BLOB, gradient/INPUT (or every blob), parameter gradient/LAYER/INDEX, parameter/LAYER/INDEX where the
    forward pass itself changed it, and file/FILE/DATASET of what HDF5Output writes.
    """
    text = path.read_text()
    net = caffe.Net(str(path), text_format.Parse(text, caffe_pb2.NetParameter()).state.phase)
    values = Values(case, text)
    draw_parameters(net, values)
    before = {place: blob.data.copy() for place, blob in parameters(net).items()}
    if net.layers[0].type == "MemoryData":
        net.set_input_arrays(*values.memory(tuple(net.blobs[net._blob_names[0]].shape)))
    inputs = {name: values.input(name, tuple(net.blobs[name].shape)) for name in net.inputs}
    for name in inputs:
        net.blobs[name].diff[...] = np.nan  # stays where no gradient is passed down to
    for name in net.outputs:
        if net.blob_loss_weights[name] == 0:
            net.blobs[name].diff[...] = values.output_gradient(name, tuple(net.blobs[name].shape))
    for _ in range(forwards(text)):
        for name, value in inputs.items():  # an in-place layer may have written over it
            net.blobs[name].data[...] = value
        net.forward()
    answer = {
        f"top/{name}": blob.data.copy()
        for name, blob in net.blobs.items()
        if "_split_" not in name and not (name in inputs and np.array_equal(blob.data, inputs[name]))
    }
    net.clear_param_diffs()
    net.backward()
    answer.update(
        {
            f"gradient/{name}": net.blobs[name].diff.copy()
            for name in (net.blobs if every_gradient else inputs)
            if "_split_" not in name and np.isfinite(net.blobs[name].diff).all()
        }
    )
    for (layer, index), blob in parameters(net).items():
        answer[f"parameter gradient/{layer}/{index}"] = blob.diff.copy()
        if not np.array_equal(blob.data, before[layer, index]):
            answer[f"parameter/{layer}/{index}"] = blob.data.copy()
    del net  # closes what it writes
    for layer in text_format.Parse(text, caffe_pb2.NetParameter()).layer:
        name = layer.hdf5_output_param.file_name
        if layer.type != "HDF5Output":
            continue
        with h5py.File(name, "r") as file:
            answer.update({f"file/{name}/{dataset}": file[dataset][()] for dataset in file})
    return answer


def outputs(path: Path, case: str) -> dict:
    """What one forward pass leaves in a net's outputs, as run_net has them."""
    text = path.read_text()
    net = caffe.Net(str(path), text_format.Parse(text, caffe_pb2.NetParameter()).state.phase)
    values = Values(case, text)
    draw_parameters(net, values)
    for name in net.inputs:
        net.blobs[name].data[...] = values.input(name, tuple(net.blobs[name].shape))
    return {f"top/{name}": blob.copy() for name, blob in net.forward().items()}


def record_cases(folder: Path) -> None:
    answers: dict = {}
    for case in all_cases(folder):
        print(case, flush=True)  # Caffe ends the whole process at an error: this names the case
        layer_type, name = case.split("/")
        for key, value in run_net(folder / (case + ".prototxt"), case).items():
            answers.setdefault(layer_type, {})[name + "/" + key] = value
    for layer_type, arrays in answers.items():
        np.savez_compressed(str(folder / layer_type / "recorded.npz"), **arrays)


def solve(name: str, steps: int, start: str) -> dict:
    print("solving " + name, file=sys.stderr, flush=True)  # among the log's lines, of which the rates are read
    solver = caffe.get_solver(name + ".solver.prototxt")
    if ".solverstate" in start:
        solver.restore(start)
    else:
        solver.net.copy_from(start)
    losses = []
    for _ in range(steps):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    solver.snapshot()
    answer = {f"parameter/{layer}/{index}": blob.data.copy() for (layer, index), blob in parameters(solver.net).items()}
    return {"loss": np.array(losses), **answer}


def read_database(path: str) -> dict:
    import lmdb

    keys, labels, images = [], [], []
    with lmdb.open(path, readonly=True, lock=False) as environment, environment.begin() as transaction:
        for key, value in transaction.cursor():
            datum = caffe_pb2.Datum.FromString(value)
            keys.append(key.decode())
            labels.append(datum.label)
            images.append(caffe.io.datum_to_array(datum))
    return {"keys": np.array(keys), "labels": np.array(labels), "images": np.array(images)}


def main() -> None:
    command, *arguments = sys.argv[1:]
    caffe.set_mode_cpu()
    if command == "cases":
        record_cases(Path(arguments[0]))
    elif command == "net":
        np.savez(arguments[2], **run_net(Path(arguments[0]), arguments[1], every_gradient=True))
    elif command == "outputs":
        np.savez(arguments[2], **outputs(Path(arguments[0]), arguments[1]))
    elif command == "solve":
        for name in arguments[2:]:
            np.savez(name + ".npz", **solve(name, int(arguments[0]), arguments[1].format(name)))
    elif command == "database":
        np.savez(arguments[1], **read_database(arguments[0]))


if __name__ == "__main__":
    main()
