"""What the report says of rows, classes and soft targets, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from distilbert_kd.evaluation import expected_calibration_error, softmax
from distilbert_kd.report import findings
from distilbert_kd.scored_rows import ScoredRows


def _scored(teacher, student, labels, names=("a", "b")) -> ScoredRows:
    logits = {"teacher": np.asarray(teacher, np.float32), "student": np.asarray(student, np.float32)}
    return ScoredRows([(f"row {i}",) for i in range(len(labels))], np.asarray(labels), logits, names)


def test_recall_and_precision_are_not_exchanged():
    """The two are easily swapped, and the table would praise the class that the student forgets."""
    teacher = [[2, 0], [2, 0], [2, 0], [0, 2]]
    student = [[2, 0], [0, 2], [0, 2], [0, 2]]
    first, second = findings.per_class(_scored(teacher, student, [0, 0, 0, 1]))
    assert (first.num_rows, second.num_rows) == (3, 1)
    assert first.recall == {"teacher": 1.0, "student": pytest.approx(1 / 3)}
    assert first.precision == {"teacher": 1.0, "student": 1.0}
    assert second.precision == {"teacher": 1.0, "student": pytest.approx(1 / 3)}


def test_a_class_without_rows_has_no_recall():
    """0 % for a class that nobody asked about is a false alarm."""
    only = findings.per_class(_scored([[1, 0], [1, 0]], [[1, 0], [1, 0]], [0, -100]))[1]
    assert (only.num_rows, only.recall["student"], only.precision["student"]) == (0, None, None)


def test_confusion_has_the_teacher_in_rows():
    """A transposed matrix tells the opposite story."""
    counts = findings.confusion(_scored([[1, 0], [1, 0], [0, 1]], [[0, 1], [0, 1], [0, 1]], [0, 0, -100]))
    assert counts.tolist() == [[0, 2], [0, 1]]


def test_reliability_adds_up_to_the_calibration_error():
    """A diagram that disagrees with the number beside it makes both worthless."""
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(500, 3)), generator.integers(3, size=500)
    bins = findings.reliability(logits, labels)
    error = sum(abs(right - confidence) * count for confidence, right, count in bins) / 500
    assert error == pytest.approx(expected_calibration_error(softmax(logits), labels, num_bins=10))


def test_entropy_rises_with_the_temperature_to_ln_c():
    """The method's claim, and the figure's: a lower temperature holds less information."""
    logits = np.array([[3.0, 1.0, 0.0]])
    values = [float(findings.entropies(logits, t)[0]) for t in (0.01, 0.5, 1, 2, 8, 1000)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=1e-9) and values[-1] == pytest.approx(math.log(3), abs=1e-5)
    p = np.exp([3.0, 1.0, 0.0]) / np.exp([3.0, 1.0, 0.0]).sum()
    assert values[2] == pytest.approx(-(p * np.log(p)).sum())


def test_the_worst_rows_come_first():
    """Rows where the answer differs matter more than rows that are surer of the same answer."""
    teacher = [[5.0, 0], [1.0, 0], [0, 3.0], [0, 1.0]]
    student = [[0.1, 0], [0, 1.0], [3.0, 0], [0, 1.0]]
    scored = _scored(teacher, student, [0, 0, 0, 0])
    rows = findings.most_different(scored.logits, is_regression=False, num_rows=3)
    assert [row for row, _ in rows] == [2, 1, 0]
    p, q = softmax(np.array([[0, 3.0]]))[0], softmax(np.array([[3.0, 0]]))[0]
    assert rows[0][1] == pytest.approx(float((p * np.log(p / q)).sum()))


def test_numbers_differ_by_their_distance():
    """For regression there is no class in which the two could part."""
    logits = {"teacher": np.array([[1.0], [2.0], [3.0]]), "student": np.array([[1.5], [0.0], [3.1]])}
    rows = findings.most_different(logits, is_regression=True, num_rows=2)
    assert rows == [(1, pytest.approx(2.0)), (0, pytest.approx(0.5))]


def test_telling_rows_are_sure_unsure_and_wrong():
    """A reader who only sees sure rows learns nothing of what soft targets hold."""
    teacher = [[9.0, 0], [4.0, 0], [2.0, 0], [0.1, 0], [0, 5.0]]
    assert findings.telling_rows(_scored(teacher, teacher, [0, 0, 0, 0, 0])) == {
        "surest": 0,
        "middling": 1,
        "least sure": 3,
        "surest of the wrong ones": 4,
    }


def test_unlabelled_rows_count_for_no_score():
    """A label of -100 read as a class would make every model wrong there."""
    teacher, student = [[2, 0]] * 6, [[2, 0]] * 6
    found = findings.uncertainty("accuracy_f1", _scored(teacher, student, [0, 0, 0, -100, -100, -100]))
    assert (found.scores["student"].low, found.scores["student"].high) == (1.0, 1.0)
    assert found.gain is None and found.gain_test is None
    assert found.loss.has_zero and found.loss_test.p_value == 1.0
