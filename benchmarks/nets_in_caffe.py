"""What benchmarks/nets.py runs inside real Caffe's root: nets_in_caffe.py NET ITERATIONS -> seconds of each, a line."""

import sys
import time

import caffe
import numpy as np


def main() -> None:
    path, iterations = sys.argv[1], int(sys.argv[2])
    caffe.set_mode_cpu()
    net = caffe.Net(path, caffe.TRAIN)
    for name, value in np.load(path + ".npz").items():
        net.blobs[name].data[...] = value
    for _ in range(iterations):
        start = time.perf_counter()
        net.forward()
        net.backward()
        print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
