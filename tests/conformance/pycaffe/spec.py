"""Write nets as Python: NetSpec, names, nested parameters, Crop by coord_map."""

import sys

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from caffe.coord_map import coord_map_from_to, crop

answers = {}
weight_param = dict(lr_mult=1, decay_mult=1)
bias_param = dict(lr_mult=2, decay_mult=0)


def conv_relu(bottom, ks, nout, stride=1, pad=0, group=1):
    conv = L.Convolution(
        bottom,
        kernel_size=ks,
        stride=stride,
        num_output=nout,
        pad=pad,
        group=group,
        param=[weight_param, bias_param],
        weight_filler=dict(type="gaussian", std=0.01),
        bias_filler=dict(type="constant", value=0.1),
    )
    return conv, L.ReLU(conv, in_place=True)


def fc_relu(bottom, nout):
    fc = L.InnerProduct(bottom, num_output=nout, param=[weight_param, bias_param])
    return fc, L.ReLU(fc, in_place=True)


n = caffe.NetSpec()
n.data, n.label = L.Data(
    source="train_lmdb",
    backend=P.Data.LMDB,
    batch_size=256,
    ntop=2,
    include=dict(phase=0),
    transform_param=dict(crop_size=227, mean_value=[104, 117, 123], mirror=True),
)
n.conv1, n.relu1 = conv_relu(n.data, 11, 96, stride=4)
n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=3, stride=2)
n.norm1 = L.LRN(n.pool1, local_size=5, alpha=1e-4, beta=0.75, norm_region=P.LRN.WITHIN_CHANNEL)
n.conv2, n.relu2 = conv_relu(n.norm1, 5, 256, pad=2, group=2)
n.fc6, n.relu6 = fc_relu(n.relu2, 4096)
n.drop6 = L.Dropout(n.relu6, in_place=True)
n.fc8 = L.InnerProduct(n.drop6, num_output=1000, param=[weight_param, bias_param])
n.loss = L.SoftmaxWithLoss(n.fc8, n.label, loss_param=dict(ignore_label=255, normalization=P.Loss.VALID))
n.unused = L.Silence(n.norm1, ntop=0)
answers["NetSpec/text CaffeNet"] = str(n.to_proto())

n = caffe.NetSpec()
n.data = L.Input(shape=[dict(dim=[1, 3, 50, 60])])
a = L.InnerProduct(L.Dropout(n.data, dropout_ratio=0.5), num_output=10)
n.sum = L.Eltwise(a, L.InnerProduct(n.data, num_output=10, name="given"), operation=P.Eltwise.SUM, coeff=[1, -1])
n["x/y"] = L.Python(n.sum, module="m", layer="l", param_str="a", loss_weight=1, include=dict(phase=caffe.TEST))
n.reshaped = L.Reshape(n.sum, reshape_param={"shape": {"dim": [0, -1]}})
n.lstm = L.LSTM(n.sum, n.reshaped, recurrent_param=dict(num_output=3), propagate_down=[True, False])
n.p, n.q = L.Slice(n.sum, slice_point=3, ntop=2)
for name, made in [
    ("spp", L.SPP(n.sum, pyramid_height=2)),
    ("prelu", L.PReLU(n.sum, channel_shared=True)),
    ("mvn", L.MVN(n.sum, across_channels=True)),
    ("elu", L.ELU(n.sum, alpha=2)),
    ("hdf5", L.HDF5Data(source="a", batch_size=2)),
    ("bn", L.BatchNorm(n.sum, use_global_stats=True)),
    ("window", L.WindowData(source="a", batch_size=2, fg_fraction=0.25)),
    ("loss", L.InfogainLoss(n.p, n.q, source="m.binaryproto", loss_weight=[0.5])),
    ("contrastive", L.ContrastiveLoss(n.p, n.q, n.sum, margin=2)),
    ("memory", L.MemoryData(batch_size=1, channels=2, height=3, width=4)),
    ("dummy", L.DummyData(shape=[dict(dim=[1, 2]), dict(dim=[3])], data_filler=dict(type="uniform"))),
    ("deconvolution", L.Deconvolution(n.data, convolution_param=dict(kernel_size=3, num_output=2))),
]:
    n[name] = made
answers["NetSpec/text types"] = str(n.to_proto())

x = L.Input(shape=dict(dim=[1, 2]))
answers["NetSpec/text without names"] = str(caffe.to_proto(L.ReLU(L.ReLU(x)), L.TanH(x)))
answers["NetSpec/text of one blob"] = str(L.Sigmoid(x).to_proto())

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 3, 50, 60]))
n.conv1, n.relu1 = conv_relu(n.data, 3, 4, pad=50)
n.pool1 = L.Pooling(n.relu1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
n.conv2, n.relu2 = conv_relu(n.pool1, 3, 4, pad=1)
n.pool2 = L.Pooling(n.relu2, kernel_size=2, stride=2, pool=P.Pooling.MAX)
n.score2 = L.Convolution(n.pool2, kernel_size=1, num_output=2)
n.up2 = L.Deconvolution(n.score2, convolution_param=dict(num_output=2, kernel_size=4, stride=2, bias_term=False))
n.score1 = L.Convolution(n.pool1, kernel_size=1, num_output=2)
n.cropped = crop(n.up2, n.score1)
n.fused = L.Eltwise(n.cropped, n.score1)
n.up = L.Deconvolution(n.fused, convolution_param=dict(num_output=2, kernel_size=4, stride=2, bias_term=False))
n.score = crop(n.up, n.data)
answers["NetSpec/text FCN"] = str(n.to_proto())
for name, pair in [("up", (n.up, n.data)), ("score", (n.score2, n.pool1))]:
    axis, scale, shift = coord_map_from_to(*pair)
    answers["NetSpec/map of " + name] = np.array([axis, scale[0], shift[0]])

np.savez(sys.argv[1], **answers)
