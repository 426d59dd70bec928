"""How good the logits are, and how near the student's are to the teacher's. Pure functions of arrays.

Shapes: `B` rows, `C` classes. Regression has one output: [B, 1] or [B].
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from distilbert_kd.errors import DataError, DivergedError
from distilbert_kd.metrics import compute_metrics, is_regression_metric, labelled, score


__all__ = [
    "ChanceTest",
    "Fidelity",
    "SplitResult",
    "evaluate_logits",
    "expected_calibration_error",
    "fidelity",
    "is_near_chance",
    "predicted",
    "softmax",
]


@dataclass(frozen=True)
class Fidelity:
    """How near a student's outputs are to its teacher's; classes fill the first two fields, regression the last two.

    Attributes:
        agreement: Share of rows with the same most likely class, in [0, 1].
        kl_nats: Mean over the rows of KL(teacher || student) at T = 1, in nats; 0 where the two are equal.
        mean_squared_difference: Mean squared difference of the two numbers, in squared units of the label.
        pearson: Pearson correlation of the two numbers; 0.0 if either is constant.
    """

    agreement: float | None = None
    kl_nats: float | None = None
    mean_squared_difference: float | None = None
    pearson: float | None = None


@dataclass(frozen=True)
class SplitResult:
    """One model on one labelled split.

    Attributes:
        score: The main number of the task, see `distilbert_kd.metrics.score`.
        metrics: All metrics of the task.
        num_rows: Rows with a label, over which score, metrics and calibration error were taken.
        calibration_error: Expected calibration error in [0, 1]; None for regression.
        constant_score: What the best single answer, given for every row, would score.
        is_near_chance: Whether the outputs correlate with the labels no more than guessing might.
        fidelity: Nearness to the teacher over all rows; None for the teacher itself.
    """

    score: float
    metrics: dict[str, float]
    num_rows: int
    calibration_error: float | None
    constant_score: float
    is_near_chance: bool
    fidelity: Fidelity | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as it stands in `results.json`."""
        return asdict(self)


class ChanceTest(NamedTuple):
    """What `is_near_chance` found: the verdict, the correlation and the bound that it was held against."""

    is_near_chance: bool
    statistic: float
    bound: float


def evaluate_logits(
    metric: str, logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None = None
) -> SplitResult:
    """Score a model's logits on one split.

    Args:
        metric: A key of `distilbert_kd.metrics.SCORE_NAMES`.
        logits: [B, C], or [B, 1] or [B] for regression.
        labels: [B]; rows with -100 count for fidelity only.
        teacher_logits: The teacher's on the same rows, to add the fidelity of a student.

    Returns:
        The record; its fidelity is None without `teacher_logits`, its calibration error None for regression.

    Raises:
        DataError: No row has a label, or a label is no class of the model.
        DivergedError: A logit is NaN or infinite.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    is_regression = is_regression_metric(metric)
    _check_finite(logits, "the model's logits")
    rows = labelled(labels)
    predictions = predicted(logits, is_regression)
    if not is_regression:
        _check_classes(labels, rows, logits.shape[1])
    values = compute_metrics(metric, predictions, labels)
    calibration_error = None
    if not is_regression:
        calibration_error = expected_calibration_error(softmax(logits[rows]), labels[rows])
    return SplitResult(
        score=score(metric, values),
        metrics=values,
        num_rows=int(rows.sum()),
        calibration_error=calibration_error,
        constant_score=0.0 if is_regression else _constant_score(metric, labels[rows]),
        is_near_chance=is_near_chance(logits, labels, is_regression).is_near_chance,
        fidelity=None if teacher_logits is None else fidelity(logits, teacher_logits, is_regression),
    )


def _constant_score(metric: str, labels: np.ndarray) -> float:
    """The most frequent class is the best answer for accuracy; F1 looks at class 1 alone."""
    answers = {int(np.bincount(labels.astype(np.int64)).argmax()), 1}
    return max(score(metric, compute_metrics(metric, np.full(len(labels), each), labels)) for each in answers)


def _check_classes(labels: np.ndarray, rows: np.ndarray, num_classes: int) -> None:
    wrong = rows & ((labels < 0) | (labels >= num_classes))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"Expected labels from 0 to {num_classes - 1}, the classes of the model, got {labels[row]} in row {row}. "
            "Give the data's label names in the order of the model's, or use a model of this task."
        )


def _check_finite(logits: np.ndarray, what: str) -> None:
    finite = np.isfinite(logits).reshape(len(logits), -1).all(axis=1)
    if not finite.all():
        raise DivergedError(
            f"Expected finite numbers, got NaN or infinity in {what}, {int((~finite).sum())} of {len(finite)} rows, "
            f"the first is row {int(np.argmin(finite))}. The weights are not usable: lower the learning rate or leave "
            "half precision."
        )


def predicted(logits: np.ndarray, is_regression: bool) -> np.ndarray:
    """What the model says.

    Args:
        logits: [B, C], or [B, 1] or [B] for regression.
        is_regression: Numbers and not classes.

    Returns:
        [B] most likely classes (the first of equals), or [B] numbers for regression.

    Raises:
        DataError: Regression logits with more than one output, or class logits with fewer than two.
    """
    logits = np.asarray(logits)
    if is_regression:
        if logits.ndim > 2 or (logits.ndim == 2 and logits.shape[1] != 1):
            raise DataError(
                f"Expected one output per row for regression, got logits of shape {logits.shape}. "
                "Use a model with num_labels=1, or a classification metric."
            )
        return logits.reshape(len(logits))
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise DataError(
            f"Expected logits of shape (rows, classes) with two classes or more, got {logits.shape}. "
            "A model with one output is a regression model: score it with a regression metric."
        )
    return logits.argmax(axis=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities at T = 1 in float64: [B, C] to [B, C]."""
    return np.exp(_log_softmax(logits))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def fidelity(student_logits: np.ndarray, teacher_logits: np.ndarray, is_regression: bool) -> Fidelity:
    """Compare a student with its teacher on the same rows, in float64.

    Formula: KL = mean_b sum_c p_t (log p_t - log p_s) in nats, p = softmax(logits) at T = 1.

    Args:
        student_logits: [B, C], or [B, 1] or [B] for regression.
        teacher_logits: Of the same rows, with the same columns.
        is_regression: Compare numbers and not classes.

    Returns:
        Agreement and KL for classes, mean squared difference and Pearson's r for regression.

    Raises:
        DataError: The two differ in rows or classes.
        DivergedError: A logit is NaN or infinite.
    """
    student_logits, teacher_logits = np.asarray(student_logits), np.asarray(teacher_logits)
    student, teacher = predicted(student_logits, is_regression), predicted(teacher_logits, is_regression)
    classes = () if is_regression else (student_logits.shape[1], teacher_logits.shape[1])
    if len(student) != len(teacher) or len(set(classes)) > 1:
        raise DataError(
            f"Expected student and teacher logits of the same rows and classes, got {student_logits.shape} and "
            f"{teacher_logits.shape}. Predict the same split with both."
        )
    _check_finite(student_logits, "the student's logits")
    _check_finite(teacher_logits, "the teacher's logits")
    if is_regression:
        student, teacher = student.astype(np.float64), teacher.astype(np.float64)
        return Fidelity(
            mean_squared_difference=float(np.mean((student - teacher) ** 2)), pearson=_pearson(student, teacher)
        )
    log_student, log_teacher = _log_softmax(student_logits), _log_softmax(teacher_logits)
    divergence = (np.exp(log_teacher) * (log_teacher - log_student)).sum(axis=1)
    return Fidelity(agreement=float(np.mean(student == teacher)), kl_nats=float(max(divergence.mean(), 0.0)))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """How far the confidence is from the share of right answers.

    Formula: ECE = sum_m |B_m| / B * |accuracy(B_m) - confidence(B_m)| over equal-width bins ((m - 1) / M, m / M] of
    the largest probability. 0 is calibrated, 1 is always sure and always wrong.

    Args:
        probabilities: [B, C], rows sum to 1.
        labels: [B] classes.
        num_bins: M. The estimate depends on it: compare only numbers with the same M.

    Returns:
        The error in [0, 1].

    Source: Guo et al. 2017, equation 3, https://arxiv.org/abs/1706.04599
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_right = (probabilities.argmax(axis=1) == np.asarray(labels)).astype(np.float64)
    bins = np.digitize(confidence, np.linspace(0.0, 1.0, num_bins + 1)[1:-1], right=True)
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=num_bins)  # |B_m| * (accuracy - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def is_near_chance(logits: np.ndarray, labels: np.ndarray, is_regression: bool) -> ChanceTest:
    """Whether a model does no better than guessing: correlation of prediction and label below 2 / sqrt(B).

    The statistic is Gorodkin's R_K for classes (Matthews' correlation for two) and Pearson's r for numbers. Accuracy
    would mislead: where 90 % of the rows have one class, 90 % accuracy knows nothing, and the correlation is 0 there.
    If predictions and labels are unrelated, the standard deviation of either statistic over permutations of the
    labels is at most 1 / sqrt(B - 1) (exactly that for two classes and for numbers): about one such model in 40
    passes the bound. A model that is worse than guessing (labels swapped) is near chance too. Constant predictions or
    labels give 0.0. With four rows or fewer the bound is 1 or more: nothing can be told, and the answer is yes.

    Args:
        logits: [B, C], or [B, 1] or [B] for regression.
        labels: [B]; rows with -100 are left out.
        is_regression: Numbers and not classes.

    Returns:
        The verdict, the statistic and the bound.

    Raises:
        DataError: No row has a label.
        DivergedError: A logit is NaN or infinite.

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient"
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    _check_finite(logits, "the model's logits")
    rows = labelled(labels)
    if not rows.any():
        raise DataError(
            f"Expected labelled rows to hold the model against chance, got {len(labels)} rows, none with a label. "
            "Check the model on a labelled split."
        )
    predictions, labels = predicted(logits, is_regression)[rows], labels[rows]
    if is_regression:
        statistic = _pearson(predictions.astype(np.float64), labels.astype(np.float64))
    else:
        statistic = _matthews(predictions, labels)
    bound = 2.0 / float(np.sqrt(len(labels)))
    return ChanceTest(statistic < bound, statistic, bound)


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    if np.all(first == first[0]) or np.all(second == second[0]):
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    return float((first @ second) / (np.linalg.norm(first) * np.linalg.norm(second)))


def _matthews(first: np.ndarray, second: np.ndarray) -> float:
    """R_K = cov(X, Y) / sqrt(cov(X, X) cov(Y, Y)) with X, Y the one-hot rows and cov summed over the classes."""
    classes = np.union1d(first, second)
    first_shares = np.array([np.mean(first == k) for k in classes])
    second_shares = np.array([np.mean(second == k) for k in classes])
    covariance = np.mean(first == second) - first_shares @ second_shares
    variances = (1.0 - first_shares @ first_shares) * (1.0 - second_shares @ second_shares)
    return float(covariance / np.sqrt(variances)) if variances > 1e-12 else 0.0
