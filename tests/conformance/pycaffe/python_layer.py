"""A training with Python layers: data out of Python, a loss in Python, the objects at hand."""

import sys

import caffe
import numpy as np

answers = {}
if hasattr(caffe, "allow_python_layers"):  # what the prototxt imports is trusted here
    caffe.allow_python_layers()

with open("python.prototxt", "w") as file:
    file.write("""
layer { name: "data" type: "Python" top: "data" top: "label"
        python_param { module: "python_layers" layer: "Counter" param_str: "7" } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 7 } }
layer { name: "loss" type: "Python" bottom: "fc" bottom: "data" top: "loss" loss_weight: 1
        python_param { module: "python_layers" layer: "Huber" param_str: "0.4" } }
""")
with open("python.solver.prototxt", "w") as file:
    file.write(
        'net: "python.prototxt" base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 max_iter: 8 snapshot_prefix: "python"'
    )
solver = caffe.get_solver("python.solver.prototxt")
random = np.random.RandomState(6)
for blob in solver.net.params["fc"]:
    blob.data[...] = random.uniform(-0.3, 0.3, size=blob.data.shape)
losses = []
for _ in range(8):
    solver.step(1)
    losses.append(float(solver.net.blobs["loss"].data[0]))
answers["Python layer/losses"] = np.array(losses)
answers["Python layer/weights"] = solver.net.params["fc"][0].data.copy()
answers["Python layer/made"] = np.array(solver.net.layers[0].made)
answers["Python layer/classes"] = str([type(layer).__name__ for layer in solver.net.layers if layer.type == "Python"])
answers["Python layer/param_str"] = solver.net.layers[list(solver.net._layer_names).index("loss")].param_str

np.savez(sys.argv[1], **answers)
