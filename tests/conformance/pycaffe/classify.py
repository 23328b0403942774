"""Classify images: Classifier, Detector, Transformer and forward_all, as in Caffe's classification notebook."""

import sys

import caffe
import numpy as np
from PIL import Image

answers = {}
random = np.random.RandomState(2)
caffe.set_mode_cpu()

with open("deploy.prototxt", "w") as file:
    file.write("""
name: "deploy"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 12 dim: 10 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 5 kernel_size: 3 stride: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 6 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
""")
net = caffe.Net("deploy.prototxt", caffe.TEST)
for blobs in net.params.values():
    for blob in blobs:
        blob.data[...] = random.uniform(-0.01, 0.01, size=blob.data.shape)
net.save("deploy.caffemodel")

images = [
    random.rand(30, 24, 3).astype(np.float32),
    random.rand(12, 40, 3).astype(np.float32),
    random.rand(17, 13, 3).astype(np.float32),
]
mean = random.uniform(90, 130, size=(3, 16, 14))

transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
transformer.set_transpose("data", (2, 0, 1))
transformer.set_mean("data", mean.mean(1).mean(1))
transformer.set_raw_scale("data", 255)
transformer.set_channel_swap("data", (2, 1, 0))
transformer.set_input_scale("data", 0.5)
for index, image in enumerate(images):
    net.blobs["data"].data[index] = transformer.preprocess("data", image)
    answers["io/prepared %d" % index] = net.blobs["data"].data[index].copy()
answers["io/back"] = transformer.deprocess("data", net.blobs["data"].data[0])
output = net.forward()
answers["Net/classified"] = output["prob"].copy()
answers["Net/classes"] = output["prob"][:3].argsort(1)
answers["Net/inner blob"] = net.forward(blobs=["conv"])["conv"].copy()

many = random.uniform(-100, 100, size=(10, 3, 12, 10))
everything = net.forward_all(data=many, blobs=["fc"])
for name, value in everything.items():
    answers["Net/all " + name] = value

for name, options in [
    ("plain", {}),
    ("mean", dict(mean=mean, raw_scale=255, channel_swap=(2, 1, 0))),
    ("sizes", dict(image_dims=(16, 15), mean=mean.mean(1).mean(1), raw_scale=255, input_scale=0.2)),
]:
    classifier = caffe.Classifier("deploy.prototxt", "deploy.caffemodel", **options)
    answers["Classifier/%s ten crops" % name] = classifier.predict(images)
    answers["Classifier/%s middle" % name] = classifier.predict(images, oversample=False)


def load(path, color=True):
    """What load_image is to give: that of this Caffe asks its scikit-image for something it no longer has."""
    return np.asarray(Image.open(path)).astype(np.float32) / 255


caffe.io.load_image = load
for index, image in enumerate(images):
    Image.fromarray((image * 255).astype(np.uint8)).save("%d.png" % index)
detector = caffe.Detector("deploy.prototxt", "deploy.caffemodel", mean=mean, raw_scale=255, channel_swap=(2, 1, 0))
windows = [("0.png", np.array([[0, 0, 12, 10], [3, 2, 28, 20], [5, 5, 9, 23]])), ("2.png", np.array([[1, 1, 16, 12]]))]
found = detector.detect_windows(windows)
answers["Detector/scores"] = np.array([detection["prediction"] for detection in found])
answers["Detector/windows"] = np.array([detection["window"] for detection in found])
answers["Detector/files"] = str([detection["filename"] for detection in found])

np.savez(sys.argv[1], **answers)
