"""Images and messages: resize_image, oversample, means, BlobProto, Datum."""

import sys

import caffe
import numpy as np
from caffe.proto import caffe_pb2

answers = {}
random = np.random.RandomState(5)
image = random.rand(23, 17, 3).astype(np.float32)
gray = random.rand(20, 30, 1).astype(np.float32)
many = random.rand(9, 8, 5).astype(np.float32)
for index, (given, size, order) in enumerate(
    [
        (image, (11, 8), 1),
        (image, (40, 50), 1),
        (gray, (13, 31), 1),
        (many, (12, 5), 1),
        (many, (12, 5), 3),
        (np.full((5, 6, 3), 0.25, np.float32), (3, 4), 1),
        (image, (11, 8), 0),
        (image, (40, 30), 3),
        (image.astype(float), (10, 10), 1),
        ((image * 255).astype(np.uint8), (10, 10), 1),
    ]
):
    answers["io/resized %d" % index] = caffe.io.resize_image(given, size, order)
answers["io/crops"] = caffe.io.oversample([image[:20], image[2:22]], (9, 8))

transformer = caffe.io.Transformer({"data": (2, 3, 12, 10)})
answers["io/nothing set"] = transformer.preprocess("data", image)
transformer.set_transpose("data", (2, 0, 1))
for name, mean in [
    ("one size", random.rand(3, 12, 10)),
    ("another size", random.rand(3, 20, 15)),
    ("a number a channel", random.rand(3)),
]:
    transformer.set_mean("data", mean)
    answers["io/mean of " + name] = transformer.preprocess("data", image)
    answers["io/mean of %s back" % name] = transformer.deprocess("data", answers["io/mean of " + name])

blob = caffe.io.array_to_blobproto(image, image * 2)
answers["io/BlobProto"] = np.frombuffer(blob.SerializeToString(), np.uint8)
answers["io/values"] = caffe.io.blobproto_to_array(blob)
answers["io/gradients"] = caffe.io.blobproto_to_array(blob, return_diff=True)
legacy = caffe_pb2.BlobProto(num=1, channels=2, height=3, width=1, data=range(6))
answers["io/values of an older form"] = caffe.io.blobproto_to_array(legacy)
vector = caffe.io.arraylist_to_blobprotovector_str([image, gray])
answers["io/BlobProtoVector"] = np.frombuffer(vector, np.uint8)
for index, value in enumerate(caffe.io.blobprotovector_str_to_arraylist(vector)):
    answers["io/value %d of several" % index] = value
datum = caffe.io.array_to_datum((image * 255).astype(np.uint8).transpose(2, 0, 1), 4)
answers["io/Datum"] = np.frombuffer(datum.SerializeToString(), np.uint8)
answers["io/bytes"] = caffe.io.datum_to_array(datum)
datum = caffe.io.array_to_datum(image)
answers["io/Datum of floats"] = np.frombuffer(datum.SerializeToString(), np.uint8)
answers["io/floats"] = caffe.io.datum_to_array(datum)
for name in list(answers):
    answers["io/type of " + name[3:]] = answers[name].dtype.name

np.savez(sys.argv[1], **answers)
