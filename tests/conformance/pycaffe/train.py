"""Train a LeNet-like net from the solver interface, as in Caffe's first notebook."""

import sys

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P

answers = {}
TYPES = ["SGD", "Nesterov", "Adam", "AdaGrad", "RMSProp", "AdaDelta"]


def lenet(batch):
    n = caffe.NetSpec()
    n.data, n.label = L.Data(
        batch_size=batch, backend=P.Data.LMDB, source="images_lmdb", ntop=2, transform_param=dict(scale=1.0 / 255)
    )
    n.conv1 = L.Convolution(n.data, kernel_size=3, num_output=4, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.fc1 = L.InnerProduct(n.pool1, num_output=10, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.fc1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=7, weight_filler=dict(type="xavier"))
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    n.accuracy = L.Accuracy(n.score, n.label)
    return n.to_proto()


def draw(net):
    random = np.random.RandomState(1)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = random.uniform(-0.3, 0.3, size=blob.data.shape)


def write_solver(kind):
    rates = {"Adam": 0.01, "AdaGrad": 0.02, "RMSProp": 0.005, "AdaDelta": 1}
    with open(kind + ".solver.prototxt", "w") as file:
        file.write(
            'net: "lenet.prototxt" type: "%s" base_lr: %g lr_policy: "step" gamma: 0.5 stepsize: 6 delta: 1e-4 '
            "weight_decay: 1e-3 momentum: %g display: 5 max_iter: 14 test_iter: 2 test_interval: 4 "
            'snapshot: 5 snapshot_prefix: "%s"'
            % (kind, rates.get(kind, 0.05), 0 if kind in ("AdaGrad", "RMSProp") else 0.9, kind)
        )


with open("lenet.prototxt", "w") as file:
    file.write(str(lenet(5)))

for kind in TYPES:
    write_solver(kind)
    solver = caffe.get_solver(kind + ".solver.prototxt")
    key = "solvers/" + kind + " "
    answers[key + "class"] = type(solver).__name__
    answers[key + "shapes"] = str([(name, blob.data.shape) for name, blob in solver.net.blobs.items()])
    answers[key + "parameters"] = str([(name, blobs[0].data.shape) for name, blobs in solver.net.params.items()])
    draw(solver.net)
    rates, starts = [], []
    solver.add_callback(
        lambda: starts.append(solver.iter), lambda: rates.append(np.abs(solver.net.params["fc1"][0].diff).sum())
    )
    losses = []
    for _ in range(7):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    answers[key + "losses"] = np.array(losses)
    answers[key + "gradients"] = np.array(rates)
    answers[key + "starts"] = np.array(starts)
    answers[key + "update"] = solver.net.params["conv1"][0].diff.copy()
    answers[key + "gradient of pool1"] = solver.net.blobs["pool1"].diff.copy()
    solver.test_nets[0].forward(start="conv1")
    answers[key + "tested"] = solver.test_nets[0].blobs["score"].data.copy()
    answers[key + "iterations"] = np.array([solver.iter, len(solver.test_nets), solver.param.max_iter])
    solver.solve()
    answers[key + "solved"] = solver.net.params["score"][0].data.copy()
    answers[key + "iterations at the end"] = np.array(solver.iter)

solver = caffe.SGDSolver("SGD.solver.prototxt")
draw(solver.net)
solver.net.forward()
solver.net.backward()
answers["solvers/rate"] = np.array(solver.lr)
solver.apply_update()
answers["solvers/one update"] = solver.net.params["conv1"][0].data.copy()
answers["solvers/iterations after an update"] = np.array(solver.iter)
solver.net.clear_param_diffs()
solver.net.forward()
solver.net.backward()
solver.net.backward()
answers["solvers/gradients add up"] = solver.net.params["conv1"][0].diff.copy()
solver.net.save("SGD_weights.caffemodel")
solver.restore("SGD_iter_5.solverstate")
answers["solvers/restored"] = solver.net.params["score"][0].data.copy()
answers["solvers/restored iterations"] = np.array(solver.iter)
solver.snapshot()
other = caffe.Net("lenet.prototxt", "SGD_weights.caffemodel", caffe.TEST)
answers["solvers/saved"] = other.params["conv1"][0].data.copy()
solver.share_weights(other)
solver.net.params["conv1"][0].data[0] = 3
answers["solvers/shared"] = other.params["conv1"][0].data.copy()

np.savez(sys.argv[1], **answers)
