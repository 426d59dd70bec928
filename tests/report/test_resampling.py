"""Intervals and tests decide what a report dares to say: closed forms and the metrics themselves are the oracles."""

import math

import numpy as np
import pytest

from distilbert_kd.metrics import compute_metrics, score
from distilbert_kd.report import resampling
from distilbert_kd.report.resampling import bootstrap_scores, interval_of, mcnemar


def _classes(num_classes: int, num_rows: int = 300) -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(1)
    labels = generator.integers(num_classes, size=num_rows)
    noisy = {
        name: np.where(generator.random(num_rows) < share, labels, generator.integers(num_classes, size=num_rows))
        for name, share in (("first", 0.8), ("second", 0.6))
    }
    return noisy, labels


@pytest.mark.parametrize(("metric", "num_classes"), [("accuracy_f1", 4), ("mrpc", 2), ("cola", 2), ("mnli", 3)])
def test_the_score_of_a_confusion_matrix_is_the_metric(metric, num_classes):
    """An interval around another number than the reported score would look like a finding."""
    predictions, labels = _classes(num_classes)
    confusion = np.zeros((num_classes, num_classes))
    np.add.at(confusion, (labels, predictions["second"]), 1)
    ours = resampling._SCORES[resampling.SCORE_NAMES[metric]](confusion)
    assert ours == pytest.approx(score(metric, compute_metrics(metric, predictions["second"], labels)), abs=1e-12)


def test_the_interval_leaves_out_two_and_a_half_percent_on_each_side():
    """An interval that is called 95 % and holds 92 makes findings out of noise."""
    interval = interval_of(np.arange(100_001.0))
    assert [interval.low, interval.high] == pytest.approx([2500.0, 97_500.0])


def test_the_interval_of_an_accuracy_is_that_of_the_binomial():
    """Resampling too few rows, or rows in pairs, gives intervals that are too wide or too narrow."""
    predictions, labels = _classes(2, num_rows=400)
    share = float(np.mean(predictions["first"] == labels))
    interval = interval_of(bootstrap_scores("accuracy_f1", predictions, labels)["first"])
    half = 1.96 * math.sqrt(share * (1 - share) / 400)
    assert interval.low == pytest.approx(share - half, abs=0.006)
    assert interval.high == pytest.approx(share + half, abs=0.006)


def test_differences_are_paired():
    """Unpaired resampling would call two models that err on the same rows different, or never any."""
    predictions, labels = _classes(2)
    same = {"student": predictions["first"], "control": predictions["first"].copy()}
    scores = bootstrap_scores("accuracy_f1", same, labels)
    np.testing.assert_array_equal(scores["student"], scores["control"])
    different = bootstrap_scores("accuracy_f1", predictions, labels)
    right = {name: (values == labels).astype(float) for name, values in predictions.items()}
    expected = np.std(right["first"] - right["second"]) / math.sqrt(len(labels))
    assert np.std(different["first"] - different["second"]) == pytest.approx(expected, rel=0.06)


def test_equal_seeds_equal_intervals():
    """A report that is written twice must say the same."""
    predictions, labels = _classes(3)
    first, again = (bootstrap_scores("mnli", predictions, labels, num_resamples=50)["first"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = bootstrap_scores("mnli", predictions, labels, num_resamples=50, seed=1)["first"]
    assert (first != other).any()


def test_numbers_are_resampled_by_rows():
    """For regression the standard error of Pearson's r is known; ranks must be taken anew in each resample."""
    generator = np.random.default_rng(3)
    labels = generator.normal(size=200)
    said = labels + generator.normal(0, 1, 200)
    scores = bootstrap_scores("stsb", {"student": said}, labels, num_resamples=400)["student"]
    expected = score("stsb", compute_metrics("stsb", said, labels))
    assert scores.mean() == pytest.approx(expected, abs=0.01)
    assert scores.std() == pytest.approx((1 - expected**2) / math.sqrt(200), rel=0.25)


def test_a_constant_prediction_scores_zero():
    """0/0 would put NaN, and a warning, into a report of a student that collapsed."""
    labels = np.array([0, 1] * 20)
    constant = {"student": np.zeros(40, dtype=int)}
    assert bootstrap_scores("cola", constant, labels, num_resamples=20)["student"].tolist() == [0.0] * 20
    numbers = bootstrap_scores("stsb", {"student": np.full(40, 0.1)}, labels * 1.0, num_resamples=20)
    assert numbers["student"].tolist() == [0.0] * 20


def test_mcnemar_is_exact():
    """With few rows the chi-squared approximation finds differences that are none."""
    labels = np.zeros(20, dtype=int)
    first, second = labels.copy(), labels.copy()
    second[:6], first[6] = 1, 1  # six rows only the first got right, one only the second
    test = mcnemar(first, second, labels)
    assert (test.only_first, test.only_second) == (6, 1)
    assert test.p_value == pytest.approx(2 * (1 + 7) / 2**7)
    assert mcnemar(first, first, labels).p_value == 1.0
