"""How common each class is where a net is used, beside how common it was in training.

A net's probabilities hold the shares of the classes that it was trained with. Faces of other shares are read with
p'(c) ~ p(c) * share'(c) / share(c), which is Bayes' rule (Saerens, Latinne, Decaestecker: Adjusting the Outputs of a
Classifier to New a Priori Probabilities, 2002). A power t between 0 and 1 divides by share^t: it takes shares that lie
between the training's and equal ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.base.errors import InputError

WORDS = {"training": 0.0, "uniform": 1.0}  # of powers
SUM_TOLERANCE = 0.005  # of stated shares

ClassPrior = str | float | Mapping[str, float]


class ClassPriorError(InputError):
    """A class prior that is none, or that does not fit the model's labels."""


def parse_prior(text: str) -> ClassPrior:
    """A class prior as the command line has it: training, uniform, a power, or label=share,label=share.

    Raises ClassPriorError.
    """
    if text in WORDS:
        return text
    try:
        if "=" not in text:
            return float(text)
        pairs = [part.rsplit("=", 1) for part in text.split(",")]
        shares = {label.strip(): float(share) for label, share in pairs}
    except ValueError:
        raise _unknown(text) from None
    if len(shares) < len(pairs):
        raise ClassPriorError(f"class prior {text}: a label occurs twice; give each label once")
    return shares


def ratios(prior: ClassPrior, labels: Sequence[str], training_shares: np.ndarray) -> np.ndarray:
    """What each class's probability is multiplied by, (classes,) float64, to be normalised afterwards.

    Args:
        prior: `training`, `uniform`, a power 0..1, or the share of each label. Labels that are left out share the
            rest as they did in training.
        labels: of the model.
        training_shares: (classes,) shares of the training images, each above 0.

    Raises:
        ClassPriorError: the prior is none of these, names another label, or its shares do not add up to 1.
    """
    if isinstance(prior, str) and prior in WORDS:
        prior = WORDS[prior]
    if isinstance(prior, Mapping):
        return _stated(prior, labels, training_shares) / training_shares
    if isinstance(prior, (str, bool)) or not 0 <= prior <= 1:
        raise _unknown(prior)
    return training_shares ** -float(prior)


def _stated(shares: Mapping[str, float], labels: Sequence[str], training_shares: np.ndarray) -> np.ndarray:
    """The shares of all labels, those left out being given the rest."""
    told = ", ".join(f"{label}={share:g}" for label, share in shares.items())
    strange = [label for label in shares if label not in labels]
    if strange:
        raise ClassPriorError(f"class prior {told}: the model has no label {strange[0]}; it has {', '.join(labels)}")
    if not shares or not all(0 < share < 1 for share in shares.values()):
        raise ClassPriorError(f"class prior {told}: each share must lie between 0 and 1")
    found = np.array([shares.get(label, 0.0) for label in labels])
    left_out = found == 0
    rest = 1 - found.sum()
    if left_out.any():
        if rest <= 0:
            raise ClassPriorError(
                f"class prior {told}: the shares add up to {found.sum():g}, which leaves nothing for the other labels"
            )
        found[left_out] = rest * training_shares[left_out] / training_shares[left_out].sum()
    elif abs(rest) > SUM_TOLERANCE:
        raise ClassPriorError(f"class prior {told}: the shares add up to {found.sum():g}; they must add up to 1")
    return found


def _unknown(prior: object) -> ClassPriorError:
    return ClassPriorError(
        f"class prior {prior}: training, uniform, a number from 0 to 1 or LABEL=SHARE,LABEL=SHARE was expected"
    )
