"""Net surgery: edit weights, turn a fully connected net into a convolutional one, share, save, reshape, load."""

import sys

import caffe
import numpy as np

answers = {}
random = np.random.RandomState(3)

HEAD = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
"""
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: %d dim: 2 dim: %d dim: %d } } }'
with open("full.prototxt", "w") as file:
    file.write(
        'name: "full"'
        + INPUT % (2, 12, 10)
        + HEAD
        + """
layer { name: "fc1" type: "InnerProduct" bottom: "pool" top: "fc1" inner_product_param { num_output: 6 } }
layer { name: "relu1" type: "ReLU" bottom: "fc1" top: "fc1" }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2" inner_product_param { num_output: 3 } }
layer { name: "prob" type: "Softmax" bottom: "fc2" top: "prob" }
"""
    )
with open("convolutional.prototxt", "w") as file:
    file.write(
        'name: "convolutional"'
        + INPUT % (1, 17, 21)
        + HEAD
        + """
layer { name: "fc1-conv" type: "Convolution" bottom: "pool" top: "fc1-conv"
        convolution_param { num_output: 6 kernel_h: 5 kernel_w: 4 } }
layer { name: "relu1" type: "ReLU" bottom: "fc1-conv" top: "fc1-conv" }
layer { name: "fc2-conv" type: "Convolution" bottom: "fc1-conv" top: "fc2-conv"
        convolution_param { num_output: 3 kernel_size: 1 } }
layer { name: "prob" type: "Softmax" bottom: "fc2-conv" top: "prob" }
"""
    )

full = caffe.Net("full.prototxt", caffe.TEST)
for blobs in full.params.values():
    for blob in blobs:
        blob.data[...] = random.uniform(-0.4, 0.4, size=blob.data.shape)
full.save("full.caffemodel")
full = caffe.Net("full.prototxt", "full.caffemodel", caffe.TEST)
names = ["fc1", "fc2"]
parameters = {name: (full.params[name][0].data, full.params[name][1].data) for name in names}
answers["Net/sizes"] = str({name: (weights.shape, bias.shape) for name, (weights, bias) in parameters.items()})

net = caffe.Net("convolutional.prototxt", "full.caffemodel", caffe.TEST)
convolutional = {name: (net.params[name + "-conv"][0].data, net.params[name + "-conv"][1].data) for name in names}
for name in names:
    convolutional[name][0].flat = parameters[name][0].flat
    convolutional[name][1][...] = parameters[name][1]
image = random.uniform(-1, 1, size=(1, 2, 17, 21)).astype(np.float32)
answers["Net/map"] = net.forward_all(data=image)["prob"]
answers["Net/classes of the map"] = answers["Net/map"][0].argmax(axis=0)

net.blobs["data"].reshape(1, 2, 12, 10)
net.reshape()
net.blobs["data"].data[...] = image[:, :, 2:14, 3:13]
answers["Net/one place"] = net.forward()["prob"].copy()
full.blobs["data"].data[...] = image[:, :, 2:14, 3:13]
answers["Net/the same of the full net"] = full.forward()["prob"].copy()
net.blobs["data"].reshape(3, 2, 30, 26)
answers["Net/shapes without reshape"] = str(net.blobs["prob"].data.shape)
net.forward()
answers["Net/shapes after forward"] = str([(name, blob.data.shape) for name, blob in net.blobs.items()])

shared = caffe.Net("full.prototxt", caffe.TEST)
shared.share_with(full)
full.params["fc1"][0].data[1] *= -2
full.params["fc1"][0].diff[...] = 7
shared.blobs["data"].data[...] = full.blobs["data"].data
answers["Net/shared"] = shared.forward()["prob"].copy()
answers["Net/shared gradients"] = shared.params["fc1"][0].diff.copy()
full.save_hdf5("full.h5")
loaded = caffe.Net("full.prototxt", weights="full.h5", phase=caffe.TEST)
answers["Net/from HDF5"] = loaded.params["fc1"][0].data.copy()
loaded.params["fc1"][0].data[...] = 0
loaded.load_hdf5("full.h5")
answers["Net/from HDF5 again"] = loaded.params["fc1"][0].data.copy()
loaded.copy_from("full.caffemodel")
answers["Net/copied"] = loaded.params["fc1"][0].data.copy()

blob = full.blobs["pool"]
answers["Net/axes"] = np.array([blob.num, blob.channels, blob.height, blob.width, blob.count, *blob.shape])
bias = full.params["conv"][1]
answers["Net/axes of a vector"] = np.array([bias.num, bias.channels, bias.height, bias.width, bias.count, *bias.shape])
answers["Net/layers"] = str([(name, layer.type, len(layer.blobs)) for name, layer in full.layer_dict.items()])
answers["Net/names"] = str(
    [
        list(full._layer_names),
        list(full.blobs),
        list(full.params),
        full.inputs,
        full.outputs,
        list(full.top_names.items()),
        list(full.bottom_names.items()),
        list(full.blob_loss_weights.items()),
    ]
)
answers["Net/types"] = str(sorted(caffe.layer_type_list()))
weights = full.params["conv"][0].data
weights.reshape(-1)[:5] = 9  # arrays lie in memory as Caffe's do: this is no copy
answers["Net/written flat"] = full.params["conv"][0].data.copy()

np.savez(sys.argv[1], **answers)
