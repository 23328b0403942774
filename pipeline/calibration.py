"""How sure a net may be: one temperature that makes its probabilities mean what they say.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, 2017.
"""

import numpy as np

CALIBRATION_BINS = 15  # of equal width, as in Guo et al.
UNCERTAIN = 0.5  # a face whose greatest calibrated probability is below it is called uncertain
FLT_MIN = float(np.finfo(np.float32).tiny)  # the smallest probability whose logarithm is taken, as Caffe's loss does
TEMPERATURES = (0.05, 20.0)  # looked at; a net that needs another is no classifier


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of the logits over `temperature`: (N, classes) to (N, classes), the greatest staying the greatest.

    Above 1 they become less sure. Probabilities will do instead of logits: their logarithms differ by a constant.
    """
    logits = np.log(np.maximum(probabilities, FLT_MIN)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(probabilities.dtype)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature of the least negative log likelihood: truth (N,) class indices, probabilities (N, classes)."""
    from scipy.optimize import minimize_scalar

    def loss(logarithm: float) -> float:
        return negative_log_likelihood(truth, calibrate(probabilities, float(np.exp(logarithm))))

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def negative_log_likelihood(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean -log of the true class's probability."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], FLT_MIN)).mean())


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: |accuracy - mean confidence| of each bin of confidence, weighted by its images."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - correct)
    return float(np.abs(gaps).sum() / len(confidence))
