"""Python layers of the cases, which real Caffe and the engine import alike."""

import numpy as np

try:
    from pipeline.caffe import TEST, Layer
except ImportError:  # inside real Caffe's root
    from caffe import TEST, Layer


class ScaleAndShift(Layer):
    """Two blobs of its own: x * blob 0 + blob 1, a number a channel each. param_str: what blob 0 is filled with."""

    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].channels)
        self.blobs.add_blob(bottom[0].channels)
        self.blobs[0].data[...] = float(self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        scale, shift = (blob.data.reshape(-1, 1, 1) for blob in self.blobs)
        top[0].data[...] = bottom[0].data * scale + shift

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum((0, 2, 3))
        self.blobs[1].diff[...] += top[0].diff.sum((0, 2, 3))
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.blobs[0].data.reshape(-1, 1, 1)


class Huber(Layer):
    """The Huber loss of two bottoms, quadratic up to param_str; remembers what it needs from forward to backward."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("two bottoms were expected")
        self.limit = float(self.param_str)

    def reshape(self, bottom, top):
        self.difference = np.zeros(tuple(bottom[0].shape), np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.difference[...] = bottom[0].data - bottom[1].data
        size = np.abs(self.difference)
        loss = np.where(size < self.limit, size**2 / 2, self.limit * (size - self.limit / 2))
        top[0].data[0] = loss.sum() / bottom[0].num

    def backward(self, top, propagate_down, bottom):
        slope = self.difference.clip(-self.limit, self.limit) * top[0].diff[0] / bottom[0].num
        for index, sign in enumerate((1, -1)):
            if propagate_down[index]:
                bottom[index].diff[...] = sign * slope


class Counter(Layer):
    """Makes two tops out of nothing: how many batches it has made, and a ramp of param_str's length times that."""

    def setup(self, bottom, top):
        self.made = 0

    def reshape(self, bottom, top):
        top[0].reshape(2, int(self.param_str))
        top[1].reshape(2)

    def forward(self, bottom, top):
        self.made += 1
        top[0].data[...] = np.arange(top[0].count).reshape(tuple(top[0].shape)) * self.made / 8
        top[1].data[...] = self.made % 3

    def backward(self, top, propagate_down, bottom):
        pass


class SumAndSpread(Layer):
    """Two tops of other shapes than the bottom: sums over the last axis, in TEST halved, and the largest values."""

    def setup(self, bottom, top):
        self.factor = 0.5 if self.phase == TEST else 1

    def reshape(self, bottom, top):
        shape = tuple(bottom[0].shape)
        top[0].reshape(*shape[:-1])
        top[1].reshape(shape[0])

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data.sum(-1) * self.factor
        top[1].data[...] = bottom[0].data.reshape(bottom[0].num, -1).max(1)

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        bottom[0].diff[...] = top[0].diff[..., np.newaxis] * self.factor
        flat = bottom[0].data.reshape(bottom[0].num, -1)
        diff = bottom[0].diff.reshape(bottom[0].num, -1)
        diff[np.arange(len(flat)), flat.argmax(1)] += top[1].diff


class Clamp(Layer):
    """Values to 0 at least, also in place: its gradient needs no more than what is left."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = np.maximum(bottom[0].data, 0)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * (bottom[0].data > 0)
