"""What can be learnt from the scored rows of one split. Pure functions of arrays, no text and no picture.

Shapes: `B` labelled rows, `C` classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import entr, log_softmax

from distilbert_kd.evaluation import predicted, softmax
from distilbert_kd.metrics import is_regression_metric, labelled
from distilbert_kd.report.resampling import Interval, McNemar, bootstrap_scores, interval_of, mcnemar
from distilbert_kd.scored_rows import ScoredRows


__all__ = [
    "ClassResult",
    "Uncertainty",
    "class_names",
    "confusion",
    "entropies",
    "most_different",
    "per_class",
    "reliability",
    "telling_rows",
    "uncertainty",
]


@dataclass(frozen=True)
class Uncertainty:
    """What the choice of rows leaves open; the noise of seeds comes on top.

    Attributes:
        scores: Model name to the interval of its score.
        retention: Model name to the interval of its share of the teacher's score; only where that is above zero.
        gain: Interval of the student's score minus the control's; None without a control.
        loss: Interval of the student's score minus the teacher's.
        gain_test: McNemar's test of student and control; None for regression or without a control.
        loss_test: McNemar's test of student and teacher; None for regression.
    """

    scores: dict[str, Interval]
    retention: dict[str, Interval]
    gain: Interval | None
    loss: Interval
    gain_test: McNemar | None
    loss_test: McNemar | None


@dataclass(frozen=True)
class ClassResult:
    """One class: how many rows have it, and model name to recall and precision (None for 0/0), in [0, 1]."""

    name: str
    num_rows: int
    recall: dict[str, float | None]
    precision: dict[str, float | None]


def uncertainty(metric: str, scored: ScoredRows) -> Uncertainty:
    """Intervals of all scores and of their differences, over the same resampled rows.

    Args:
        metric: of the run, see `distilbert_kd.metrics`.
        scored: the rows; those without a label are left out.

    Returns:
        The intervals and tests.
    """
    is_regression = is_regression_metric(metric)
    rows = labelled(scored.labels)
    labels = scored.labels[rows]
    said = {name: predicted(logits, is_regression)[rows] for name, logits in scored.logits.items()}
    scores = bootstrap_scores(metric, said, labels)
    teacher, student = scores["teacher"], scores["student"]
    has_control = "control" in scores
    above = bool((teacher > 0).all())
    return Uncertainty(
        scores={name: interval_of(values) for name, values in scores.items()},
        retention={name: interval_of(values / teacher) for name, values in scores.items()} if above else {},
        gain=interval_of(student - scores["control"]) if has_control else None,
        loss=interval_of(student - teacher),
        gain_test=mcnemar(said["student"], said["control"], labels) if has_control and not is_regression else None,
        loss_test=None if is_regression else mcnemar(said["student"], said["teacher"], labels),
    )


def per_class(scored: ScoredRows) -> list[ClassResult]:
    """Recall and precision of each class, for each model."""
    rows = labelled(scored.labels)
    labels = scored.labels[rows]
    said = {name: predicted(logits, False)[rows] for name, logits in scored.logits.items()}
    return [
        ClassResult(
            name,
            int((labels == number).sum()),
            {model: _share(labels == number, values == number) for model, values in said.items()},
            {model: _share(values == number, labels == number) for model, values in said.items()},
        )
        for number, name in enumerate(class_names(scored))
    ]


def class_names(scored: ScoredRows) -> list[str]:
    """The names of the classes, or their numbers."""
    return list(scored.label_names or map(str, range(scored.logits["teacher"].shape[1])))


def _share(among: np.ndarray, hits: np.ndarray) -> float | None:
    return float(hits[among].mean()) if among.any() else None


def confusion(scored: ScoredRows) -> np.ndarray:
    """How often the student says a class (column) where the teacher says another (row): [C, C] counts, all rows."""
    teacher, student = (predicted(scored.logits[name], False) for name in ("teacher", "student"))
    num_classes = scored.logits["teacher"].shape[1]
    return np.bincount(teacher * num_classes + student, minlength=num_classes**2).reshape(num_classes, num_classes)


def reliability(logits: np.ndarray, labels: np.ndarray, num_bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean confidence, share of right answers and number of rows in equal-width bins ((m - 1) / M, m / M].

    Args:
        logits: [B, C].
        labels: [B]; rows without a label are left out.
        num_bins: M.

    Returns:
        A triple for each bin with rows in it, from low confidence to high.

    Source: Guo et al. 2017, section 2, https://arxiv.org/abs/1706.04599
    """
    rows = labelled(labels)
    probabilities = softmax(logits[rows])
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels[rows]
    bins = np.digitize(confidence, np.linspace(0, 1, num_bins + 1)[1:-1], right=True)
    return [
        (float(confidence[bins == each].mean()), float(is_right[bins == each].mean()), int((bins == each).sum()))
        for each in range(num_bins)
        if (bins == each).any()
    ]


def entropies(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Entropy of softmax(logits / T) in nats, one for each row: [B, C] to [B]. At most ln C, reached as T grows."""
    return entr(softmax(logits / temperature)).sum(axis=1)


def telling_rows(scored: ScoredRows) -> dict[str, int]:
    """Rows that show what a teacher's distribution holds.

    Args:
        scored: of a task with classes.

    Returns:
        What the row is to what row it is, each row once: where the teacher is surest, middling (the median of its
        entropy) and least sure, and where it is surest and wrong.
    """
    entropy = entropies(scored.logits["teacher"], 1.0)
    order = np.argsort(entropy, kind="stable")
    found = {"surest": int(order[0]), "middling": int(order[len(order) // 2]), "least sure": int(order[-1])}
    is_wrong = labelled(scored.labels) & (predicted(scored.logits["teacher"], False) != scored.labels)
    wrong = [int(row) for row in order if is_wrong[row]]
    if wrong:
        found["surest of the wrong ones"] = wrong[0]
    rows: dict[int, str] = {}
    for what, row in found.items():
        rows.setdefault(row, what)
    return {what: row for row, what in rows.items()}


def most_different(logits: Mapping[str, np.ndarray], is_regression: bool, num_rows: int) -> list[tuple[int, float]]:
    """Rows where student and teacher part, the worst first.

    Args:
        logits: "teacher" and "student" to [B, C], or [B, 1].
        is_regression: numbers and not classes.
        num_rows: at most so many.

    Returns:
        Row and distance: KL(teacher || student) at T = 1 in nats, or the absolute difference of the two numbers. For
        classes, rows with different most likely classes come first, and only they if there are enough.
    """
    teacher, student = logits["teacher"].astype(np.float64), logits["student"].astype(np.float64)
    if is_regression:
        distance = np.abs(teacher - student).reshape(len(teacher))
        parts = np.zeros(len(distance), dtype=bool)
    else:
        theirs, ours = log_softmax(teacher, axis=1), log_softmax(student, axis=1)
        distance = (np.exp(theirs) * (theirs - ours)).sum(axis=1)
        parts = theirs.argmax(axis=1) != ours.argmax(axis=1)
    order = np.lexsort((-distance, ~parts))[:num_rows]
    return [(int(row), float(distance[row])) for row in order]
