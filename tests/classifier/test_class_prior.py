"""class priors: Bayes' rule for other shares of the classes, and what is no prior is refused by name."""

import argparse

import numpy as np
import pytest

from pipeline.classifier.calibration import calibrate
from pipeline.classifier.class_prior import ClassPrior, ClassPriorError, parse_prior, ratios
from pipeline.stages import arguments

LABELS = ("sad", "happy", "neutral")
SHARES = np.array([0.2, 0.5, 0.3])


def test_bayes_rule_of_pencil_and_paper() -> None:
    # 0.5 / 0.2, 0.3 / 0.5 and 0.2 / 0.3 are 2.5, 0.6 and 2/3; times 0.4 they are 1, 0.24 and 4/15.
    served = calibrate(np.array([[0.5, 0.3, 0.2]]), 1.0, ratios("uniform", LABELS, SHARES))
    np.testing.assert_allclose(served, [np.array([2.5, 0.6, 2 / 3]) / (2.5 + 0.6 + 2 / 3)])


def test_posterior_probabilities_of_other_shares_are_found() -> None:
    likelihoods = np.random.default_rng(0).random((50, 3))
    learned = likelihoods * SHARES
    other = np.array([0.1, 0.1, 0.8])
    expected = likelihoods * other
    prior = dict(zip(LABELS, other.tolist(), strict=True))
    served = calibrate(learned / learned.sum(axis=1, keepdims=True), 1.0, ratios(prior, LABELS, SHARES))
    np.testing.assert_allclose(served, expected / expected.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ("training", [1, 1, 1]),
        (0, [1, 1, 1]),
        ("uniform", 1 / SHARES),
        (1, 1 / SHARES),
        (0.5, SHARES**-0.5),
        ({"neutral": 0.8}, [(0.2 / 7) * 2 / 0.2, (0.2 / 7) * 5 / 0.5, 0.8 / 0.3]),  # the rest as two to five
        ({"sad": 0.2, "happy": 0.5, "neutral": 0.3}, [1, 1, 1]),
    ],
)
def test_what_each_class_is_multiplied_by(prior: ClassPrior, expected: list[float]) -> None:
    np.testing.assert_allclose(ratios(prior, LABELS, SHARES), expected)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (1.5, "class prior 1.5: training, uniform, a number from 0 to 1"),
        (-0.1, "class prior -0.1"),
        (float("nan"), "class prior nan"),
        (True, "class prior True"),
        ("equal", "class prior equal"),
        ({"angry": 0.5}, "no label angry; it has sad, happy, neutral"),
        ({"sad": 0.0}, "sad=0: each share must lie between 0 and 1"),
        ({"sad": 1.0}, "each share must lie between 0 and 1"),
        ({}, "each share must lie between 0 and 1"),
        (
            {"sad": 0.5, "happy": 0.6},
            "^class prior sad=0.5, happy=0.6: the shares add up to 1.1, which leaves nothing for",
        ),
        ({"sad": 0.5, "happy": 0.5}, "add up to 1, which leaves nothing for the other labels"),
        ({"sad": 0.5, "happy": 0.2, "neutral": 0.2}, "add up to 0.9; they must add up to 1"),
    ],
)
def test_what_is_no_prior_is_refused(prior: ClassPrior, message: str) -> None:
    with pytest.raises(ClassPriorError, match=message):
        ratios(prior, LABELS, SHARES)


def test_the_command_lines_words() -> None:
    assert parse_prior("training") == "training"
    assert parse_prior("0.25") == 0.25
    assert parse_prior("neutral=0.7, happy=0.2") == {"neutral": 0.7, "happy": 0.2}
    assert parse_prior("a=b=0.5") == {"a=b": 0.5}
    for text in ("half", "happy=", "happy=much", "happy=0.1,sad", "", "happy=0.1,happy=0.2"):
        with pytest.raises(ClassPriorError, match="class prior"):
            parse_prior(text)
    with pytest.raises(argparse.ArgumentTypeError, match="class prior half"):
        arguments.prior("half")
