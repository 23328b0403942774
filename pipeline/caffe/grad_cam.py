"""Grad-CAM: where in an image each class's score comes from, of any net with convolutions, by its gradients.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization, 2017.
"""

import numpy as np
import torch

from pipeline.base.errors import InputError
from pipeline.caffe.net import Net


class GradCamError(InputError):
    """A net that has no convolution, or no scores of classes."""


def grad_cam(net: Net, images: np.ndarray) -> np.ndarray:
    """Maps (N, classes, h, w) float32 of images (N, C, H, W) that are the net's input.

    The map of class c is sum_k a_k A_k over the channels of the last convolution's blob A, a_k being the mean over all
    places of the gradient of the class's score (what goes into Softmax) for A_k. Negative values, which the paper
    cuts off, speak against the class.

    Raises:
        GradCamError: the net does not end in Softmax, or has no convolution.
    """
    convolutions = [layer for layer in net.layers if layer.type == "Convolution"]
    last = net.layers[-1]
    if last.type != "Softmax" or not convolutions:
        raise GradCamError(f"net '{net.name}': a net with Convolution layers that ends in Softmax was expected")
    given = torch.as_tensor(images, dtype=torch.float32).requires_grad_()
    with torch.enable_grad():
        net.forward(**{net.inputs[0]: given})
        features, scores = net.blobs[convolutions[-1].param.top[0]], net.blobs[last.param.bottom[0]]
        maps = []
        for index in range(scores.shape[1]):
            (gradient,) = torch.autograd.grad(scores[:, index].sum(), features, retain_graph=True)
            maps.append((gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1))
    return torch.stack(maps, dim=1).detach().numpy().astype(np.float32)
