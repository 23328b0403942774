"""How sure a net may be: one temperature that makes its probabilities mean what they say.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, 2017.
"""

import numpy as np

CALIBRATION_BINS = 15  # of equal width, as in Guo et al.
UNCERTAIN = 0.5  # a face whose greatest calibrated probability is below it is called uncertain
FLT_MIN = float(np.finfo(np.float32).tiny)  # the smallest probability whose logarithm is taken, as Caffe's loss does
PRIOR_DEVIATION = 0.5  # of the temperature's logarithm: nets as a rule have 0.4 to 2.7
TEMPERATURES = (0.05, 20.0)  # looked at; a net that needs another is no classifier


def calibrate(probabilities: np.ndarray, temperature: float, ratios: np.ndarray | None = None) -> np.ndarray:
    """Softmax of the logits over `temperature`, times `ratios` and normalised: (N, classes) to (N, classes).

    Above 1 they become less sure. Probabilities will do instead of logits: their logarithms differ by a constant.
    ratios: (classes,) of a class prior (class_prior.ratios); without them the greatest stays the greatest.
    """
    logits = np.log(np.maximum(probabilities, FLT_MIN)) / temperature
    if ratios is not None:
        logits = logits + np.log(ratios)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(probabilities.dtype)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The likeliest temperature: truth (N,) class indices, probabilities (N, classes).

    Before anything is measured its logarithm is taken for normal around 0 with PRIOR_DEVIATION. Some thousand images
    outvote that; the twenty of a small set, all read right, would ask for a net that is always sure.
    """
    from scipy.optimize import minimize_scalar

    def loss(logarithm: float) -> float:
        likelihood = negative_log_likelihood(truth, calibrate(probabilities, float(np.exp(logarithm))))
        return likelihood + (logarithm / PRIOR_DEVIATION) ** 2 / (2 * len(truth))

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def negative_log_likelihood(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean -log of the true class's probability."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], FLT_MIN)).mean())


def calibration_error(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Expected calibration error: |accuracy - mean confidence| of each bin of confidence, weighted by its images.

    weights: (N,) what each image counts; all the same without them.
    """
    if weights is None:
        weights = np.ones(len(confidence))
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=(confidence - correct) * weights)
    return float(np.abs(gaps).sum() / weights.sum())
