"""How far scores would move with other rows: a paired bootstrap, and McNemar's exact test. Pure functions of arrays.

Shapes: `B` rows, `C` classes, `R` resamples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from distilbert_kd.metrics import SCORE_NAMES, is_regression_metric


__all__ = ["Interval", "McNemar", "bootstrap_scores", "interval_of", "mcnemar"]

NUM_RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
_MAX_NUMBERS = 1_000_000  # in memory at once


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of a number over resampled rows."""

    low: float
    high: float

    @property
    def has_zero(self) -> bool:
        """Whether zero lies in it."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same rows.

    Attributes:
        only_first: Rows that only the first one got right.
        only_second: Rows that only the second one got right.
        p_value: Two-sided and exact; 1.0 where they are never right alone.
    """

    only_first: int
    only_second: int
    p_value: float


def bootstrap_scores(
    metric: str,
    predictions: Mapping[str, np.ndarray],
    labels: np.ndarray,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
) -> dict[str, np.ndarray]:
    """Scores of models over resampled rows, the same rows for all of them.

    Rows are drawn with replacement, as many as there are. For classes it is done by drawing how often each combination
    of label and predictions occurs: the counts of rows drawn one by one have that same multinomial distribution.

    Args:
        metric: A key of `distilbert_kd.metrics.SCORE_NAMES`; the score is that of `distilbert_kd.metrics.score`.
        predictions: Model name to [B] classes or numbers.
        labels: [B], each row with a label.
        num_resamples: R.
        seed: Equal seeds draw equal rows.

    Returns:
        Model name to [R] scores. A score that is 0/0 in a resample is 0.0, as in `compute_metrics`.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile intervals)
    """
    generator = np.random.default_rng(seed)
    if is_regression_metric(metric):
        return _resampled_numbers(predictions, labels, num_resamples, generator)
    table = np.stack([labels, *predictions.values()]).astype(np.int64)  # [1 + models, B]
    combinations, counts = np.unique(table, axis=1, return_counts=True)
    draws = generator.multinomial(len(labels), counts / counts.sum(), size=num_resamples)  # [R, combinations]
    num_classes = int(table.max()) + 1
    score_of = _SCORES[SCORE_NAMES[metric]]
    scores = {}
    for name, predicted in zip(predictions, combinations[1:], strict=True):
        cells = combinations[0] * num_classes + predicted
        confusions = (np.bincount(cells, draw, num_classes**2).reshape(num_classes, -1) for draw in draws)
        scores[name] = np.array([score_of(confusion) for confusion in confusions])
    return scores


def interval_of(values: np.ndarray) -> Interval:
    """The middle 95 % of resampled values: [R]."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mcnemar(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> McNemar:
    """Whether two classifiers are right equally often, judged by the rows that only one of them gets right.

    Formula: p = P(|X - n/2| >= |b - n/2|), X ~ Binomial(n, 1/2), with b and c rows right in one alone and n = b + c.

    Args:
        first: [B] classes.
        second: [B] classes.
        labels: [B] classes.

    Returns:
        The counts and p.

    Source: McNemar 1947, https://doi.org/10.1007/BF02295996
    """
    is_first, is_second = np.asarray(first) == labels, np.asarray(second) == labels
    b, c = int((is_first & ~is_second).sum()), int((is_second & ~is_first).sum())
    return McNemar(b, c, float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0)


def _resampled_numbers(
    predictions: Mapping[str, np.ndarray], labels: np.ndarray, num_resamples: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    scores: dict[str, list[np.ndarray]] = {name: [] for name in predictions}
    at_once = max(1, _MAX_NUMBERS // len(labels))
    for start in range(0, num_resamples, at_once):
        rows = generator.integers(len(labels), size=(min(at_once, num_resamples - start), len(labels)))
        true = labels[rows].astype(np.float64)
        ranks = stats.rankdata(true, axis=1)
        for name, values in predictions.items():
            said = values[rows].astype(np.float64)
            spearman = _correlations(stats.rankdata(said, axis=1), ranks)
            scores[name].append((_correlations(said, true) + spearman) / 2)
    return {name: np.concatenate(values) for name, values in scores.items()}


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's r of each pair of rows: [R, B] and [R, B] to [R]; 0.0 where one is constant."""
    is_constant = (np.ptp(first, axis=1) == 0) | (np.ptp(second, axis=1) == 0)
    first, second = (each - each.mean(axis=1, keepdims=True) for each in (first, second))
    scale = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.where(is_constant, 0.0, (first * second).sum(axis=1) / np.where(is_constant, 1.0, scale))


def _accuracy(confusion: np.ndarray) -> float:
    return float(np.trace(confusion) / confusion.sum())


def _f1_and_accuracy(confusion: np.ndarray) -> float:
    """F1 of class 1, as in GLUE, and accuracy."""
    right = confusion[1, 1] if len(confusion) > 1 else 0.0
    claimed = (confusion[:, 1].sum() + confusion[1].sum()) if len(confusion) > 1 else 0.0
    f1 = float(2 * right / claimed) if claimed else 0.0
    return (f1 + _accuracy(confusion)) / 2


def _matthews(confusion: np.ndarray) -> float:
    """Gorodkin's R_K; Matthews' correlation for two classes."""
    true, said, total = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    covariance = np.trace(confusion) * total - true @ said
    variances = (total**2 - true @ true) * (total**2 - said @ said)
    return float(covariance / np.sqrt(variances)) if variances > 0 else 0.0


_SCORES: dict[str, Callable[[np.ndarray], float]] = {
    "accuracy": _accuracy,
    "mean of F1 and accuracy": _f1_and_accuracy,
    "Matthews correlation": _matthews,
}
