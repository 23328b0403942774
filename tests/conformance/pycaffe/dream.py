"""Climb a layer's gradient to the image, as in Deep Dream: parts of the net run, diffs are set, shapes change."""

import sys

import caffe
import numpy as np

answers = {}
random = np.random.RandomState(4)

with open("dream.prototxt", "w") as file:
    file.write("""
name: "dream"
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 16 dim: 18 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param { local_size: 3 alpha: 0.1 } }
layer { name: "left" type: "Convolution" bottom: "norm1" top: "left" param { lr_mult: 0 }
        convolution_param { num_output: 3 kernel_size: 3 stride: 2 } }
layer { name: "right" type: "Pooling" bottom: "norm1" top: "right" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "crop" type: "Crop" bottom: "right" bottom: "left" top: "crop" crop_param { offset: 0 } }
layer { name: "both" type: "Concat" bottom: "left" bottom: "crop" top: "both" }
layer { name: "flat" type: "Flatten" bottom: "both" top: "flat" }
layer { name: "sigmoid" type: "Sigmoid" bottom: "both" top: "sigmoid" }
""")
net = caffe.Net("dream.prototxt", caffe.TEST)
for blobs in net.params.values():
    for blob in blobs:
        blob.data[...] = random.uniform(-0.5, 0.5, size=blob.data.shape)
answers["Net/blobs"] = str(list(net.blobs))


def step(end, jitter):
    source, target = net.blobs["data"], net.blobs[end]
    y, x = random.randint(-jitter, jitter + 1, 2)
    source.data[0] = np.roll(np.roll(source.data[0], x, -1), y, -2)
    net.forward(end=end)
    target.diff[...] = target.data
    net.backward(start=end)
    gradient = source.diff[0]
    source.data[:] += 0.5 / np.abs(gradient).mean() * gradient
    source.data[0] = np.roll(np.roll(source.data[0], -x, -1), -y, -2)


base = random.uniform(-1, 1, size=(3, 22, 26)).astype(np.float32)
for octave, (height, width) in enumerate([(16, 18), (19, 22), (22, 26)]):
    net.blobs["data"].reshape(1, 3, height, width)
    net.blobs["data"].data[0] = base[:, :height, :width]
    for _ in range(3):
        step("both", 3)
    answers["Net/octave %d" % octave] = net.blobs["data"].data.copy()

net.clear_param_diffs()
net.forward()
returned = net.backward(
    diffs=["norm1"],
    sigmoid=np.ones(net.blobs["sigmoid"].data.shape, np.float32),
    flat=np.full(net.blobs["flat"].data.shape, 0.5, np.float32),
)
for name, value in returned.items():
    answers["Net/gradient of " + name] = value.copy()
for name, blobs in net.params.items():
    for index, blob in enumerate(blobs):
        answers["Net/gradient of %s %d" % (name, index)] = blob.diff.copy()

forward, backward = [], []
net.before_forward(forward.append)
net.after_forward(lambda layer: forward.append(-layer))
net.before_backward(backward.append)
net.after_backward(lambda layer: backward.append(-layer))
part = net.forward(start="norm1", end="left")
answers["Net/part forward"] = str(sorted(part))
part = net.backward(start="both", end="norm1")
answers["Net/part backward"] = str(sorted(part))
answers["Net/told forward"] = np.array(forward)
answers["Net/told backward"] = np.array(backward)

net.blobs["norm1"].data[...] = 1  # what layers take is what stands in their blobs
net.forward(start="left")
answers["Net/from the middle"] = net.blobs["sigmoid"].data.copy()
split = [name for name in net.blobs if name.startswith("norm1_")]
answers["Net/splits"] = np.array([np.ptp(net.blobs[name].data) for name in split[:1]])
net.blobs["left"].data[...] = -2
net.forward(start="both", end="both")
answers["Net/after an edit"] = net.blobs["both"].data.copy()
net.blobs["sigmoid"].diff[...] = 0
net.blobs["flat"].diff[...] = np.arange(net.blobs["flat"].count).reshape(net.blobs["flat"].data.shape)
net.backward(start="flat", end="both")
answers["Net/gradients from the middle"] = net.blobs["left"].diff.copy()

batches = random.uniform(-1, 1, size=(3, 3, 22, 26))
diffs = random.uniform(-1, 1, size=(3, *net.blobs["sigmoid"].data.shape[1:]))
flats = random.uniform(-1, 1, size=(3, *net.blobs["flat"].data.shape[1:]))
values, slopes = net.forward_backward_all(blobs=["left"], diffs=["conv1"], data=batches, sigmoid=diffs, flat=flats)
for name, value in values.items():
    answers["Net/all values " + name] = value
for name, value in slopes.items():
    answers["Net/all slopes " + name] = value

with open("memory.prototxt", "w") as file:
    file.write("""
layer { name: "data" type: "MemoryData" top: "data" top: "label"
        memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" loss_weight: 2 }
layer { name: "hinge" type: "HingeLoss" bottom: "fc" bottom: "label" top: "hinge" loss_weight: 0.5 }
""")
net = caffe.Net("memory.prototxt", caffe.TRAIN)
for blobs in net.params.values():
    for blob in blobs:
        blob.data[...] = random.uniform(-0.5, 0.5, size=blob.data.shape)
net.set_input_arrays(random.uniform(-1, 1, size=(4, 3, 4, 5)).astype(np.float32), np.array([0, 2, 1, 1], np.float32))
for index in range(3):
    losses = net.forward()
    answers["Net/losses %d" % index] = np.array([losses["loss"], losses["hinge"]])
    net.backward()
answers["Net/gradients of three batches"] = net.params["fc"][0].diff.copy()
net.forward()
net.blobs["loss"].diff[...] = 5
net.backward()
answers["Net/gradients of another weight"] = net.params["fc"][0].diff.copy()

np.savez(sys.argv[1], **answers)
