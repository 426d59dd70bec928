"""Scores, fidelity, calibration and the test against chance: hand-worked values and independent formulas."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import matthews_corrcoef

from distilbert_kd.errors import DataError, DivergedError
from distilbert_kd.evaluation import (
    Fidelity,
    evaluate_logits,
    expected_calibration_error,
    fidelity,
    is_near_chance,
    predicted,
    softmax,
)


def _log(*probabilities: float) -> list[float]:
    return [math.log(p) for p in probabilities]


def test_predicted_takes_the_class_or_the_number() -> None:
    """Argmax over one regression output is always 0; a (B, 1) array left as it is broadcasts against (B,) labels."""
    assert predicted(np.array([[0.1, 0.9], [2.0, -1.0]]), is_regression=False).tolist() == [1, 0]
    assert predicted(np.array([[1.5], [2.5]]), is_regression=True).tolist() == [1.5, 2.5]
    assert predicted(np.array([1.5, 2.5]), is_regression=True).tolist() == [1.5, 2.5]


def test_logits_of_the_other_kind_are_refused() -> None:
    """Class 0 for each row of a regression model would be scored as a real prediction."""
    with pytest.raises(DataError, match=r"\(2, 1\)"):
        predicted(np.zeros((2, 1)), is_regression=False)
    with pytest.raises(DataError, match="num_labels=1"):
        predicted(np.zeros((2, 3)), is_regression=True)


def test_fidelity_of_classes_is_the_worked_example() -> None:
    """The KL in the other direction, in bits, or averaged over classes too would give another number."""
    teacher = np.array([_log(0.75, 0.25), _log(0.5, 0.5)])
    student = np.array([_log(0.25, 0.75), _log(0.5, 0.5)])
    result = fidelity(student, teacher, is_regression=False)
    expected = (0.75 * math.log(3) + 0.25 * math.log(1 / 3)) / 2
    assert result.agreement == 0.5
    assert result.kl_nats == pytest.approx(expected, abs=1e-12)
    other_way = fidelity(np.array([_log(0.9, 0.1)]), np.array([_log(0.5, 0.5)]), is_regression=False).kl_nats
    assert other_way == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), abs=1e-12)
    assert (result.mean_squared_difference, result.pearson) == (None, None)


def test_kl_equals_torch_in_double_precision() -> None:
    """Softmax in the logits' half precision loses the small probabilities, where most of the KL lies."""
    rng = np.random.default_rng(3)
    student, teacher = (rng.normal(0, 5, (64, 7)).astype(np.float16) for _ in range(2))
    log_student, log_teacher = (torch.from_numpy(x).double().log_softmax(1) for x in (student, teacher))
    expected = torch.nn.functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    assert fidelity(student, teacher, is_regression=False).kl_nats == pytest.approx(expected.item(), rel=1e-12)


def test_fidelity_with_itself_is_perfect_and_large_logits_do_not_overflow() -> None:
    """exp(1000) is infinite: a sure teacher would turn the KL into NaN."""
    logits = np.array([[1000.0, -1000.0], [-5.0, 5.0]], dtype=np.float32)
    assert fidelity(logits, logits, is_regression=False) == Fidelity(agreement=1.0, kl_nats=0.0)
    assert np.isfinite(fidelity(-logits, logits, is_regression=False).kl_nats)


def test_fidelity_of_numbers_has_no_classes() -> None:
    """KL over one logit is silently zero and agreement silently one: a perfect student on paper."""
    student, teacher = np.array([[1.0], [2.0], [4.0]]), np.array([[1.0], [3.0], [2.0]])
    result = fidelity(student, teacher, is_regression=True)
    assert result.agreement is None and result.kl_nats is None
    assert result.mean_squared_difference == pytest.approx(5 / 3)
    assert result.pearson == pytest.approx(pearsonr([1, 2, 4], [1, 3, 2]).statistic)
    constant = fidelity(np.full((3, 1), 2.0), teacher, is_regression=True)
    assert constant.pearson == 0.0


def test_fidelity_refuses_logits_of_other_rows_or_classes() -> None:
    """(4, 2) against (1, 2) broadcasts to a number without an error."""
    for shape in ((1, 2), (4, 3)):
        with pytest.raises(DataError, match="same rows and classes"):
            fidelity(np.zeros((4, 2)), np.zeros(shape), is_regression=False)


def test_calibration_error_is_the_worked_example() -> None:
    """Two bins: 4 rows at 0.9 with 2 right, 2 rows at 0.6 with 2 right: (4 * 0.4 + 2 * 0.4) / 6."""
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    labels = np.array([0, 0, 1, 1, 1, 1])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.4)
    # In one bin the gaps cancel: |4/6 - 0.8|. An error averaged per row, without bins, would not.
    assert expected_calibration_error(probabilities, labels, num_bins=1) == pytest.approx(0.8 - 4 / 6)


def test_calibration_error_has_its_ends_and_its_edges() -> None:
    """A confidence of exactly 1 must not fall out of the last bin; bins are closed on the right."""
    sure = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert expected_calibration_error(sure, np.array([0, 0])) == 0.0
    assert expected_calibration_error(sure, np.array([1, 1])) == 1.0
    edge = np.array([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]])  # 2 bins: (0, 0.5], (0.5, 1]
    assert expected_calibration_error(edge, np.array([0, 1]), num_bins=2) == pytest.approx((0.5 + 0.75) / 2)


def test_calibration_error_of_a_calibrated_model_is_small() -> None:
    """A wrong sign or a wrong weight would not show in two-row examples."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 200_000)
    labels = (rng.random(200_000) > confidence).astype(int)
    assert expected_calibration_error(np.stack([confidence, 1 - confidence], axis=1), labels) < 0.01


def test_evaluate_logits_puts_it_together() -> None:
    """Rows without a label must not be scored, yet do tell how near the student is to the teacher."""
    logits = np.array([_log(0.9, 0.1), _log(0.2, 0.8), _log(0.6, 0.4)])
    teacher = np.array([_log(0.9, 0.1), _log(0.2, 0.8), _log(0.4, 0.6)])
    result = evaluate_logits("mrpc", logits, np.array([0, 1, -100]), teacher)
    assert result.metrics == {"accuracy": 1.0, "f1": 1.0}
    assert (result.score, result.num_rows) == (1.0, 2)
    assert result.calibration_error == pytest.approx((0.1 + 0.2) / 2)
    assert result.fidelity is not None and result.fidelity.agreement == pytest.approx(2 / 3)
    assert result.to_dict()["fidelity"]["kl_nats"] == pytest.approx(0.2 * math.log(1.5) / 3, abs=1e-12)
    assert evaluate_logits("mrpc", logits, np.array([0, 1, 0])).fidelity is None


def test_evaluate_logits_of_a_regression_has_no_calibration_error() -> None:
    """A softmax over one output is 1 in each row: an error of 1 - accuracy that means nothing."""
    logits, labels = np.array([[1.0], [2.0], [3.5]]), np.array([1.0, 2.0, 3.0], dtype=np.float32)
    result = evaluate_logits("stsb", logits, labels)
    assert result.calibration_error is None
    assert result.metrics["spearmanr"] == pytest.approx(1.0)
    assert result.score == pytest.approx((result.metrics["pearson"] + 1) / 2)


def test_diverged_logits_and_foreign_labels_are_refused() -> None:
    """Argmax of NaN is class 0, so a dead model would get the accuracy of that class."""
    logits = np.array([[0.0, 1.0], [np.nan, 0.0]])
    with pytest.raises(DivergedError, match="row 1"):
        evaluate_logits("rte", logits, np.array([0, 1]))
    with pytest.raises(DivergedError, match="row 1"):
        is_near_chance(logits, np.array([0, 1]), is_regression=False)
    with pytest.raises(DataError, match="got 2 in row 1"):
        evaluate_logits("rte", np.zeros((2, 2)), np.array([0, 2]))


def test_chance_statistic_equals_sklearn_and_scipy() -> None:
    """The numpy formula for several classes is easy to get wrong and still right for two."""
    rng = np.random.default_rng(5)
    logits, labels = rng.normal(size=(300, 4)), rng.integers(0, 4, 300)
    logits[np.arange(300), labels] += 1.0
    test = is_near_chance(logits, labels, is_regression=False)
    assert test.statistic == pytest.approx(matthews_corrcoef(labels, logits.argmax(1)), abs=1e-12)
    assert test.bound == pytest.approx(2 / math.sqrt(300)) and not test.is_near_chance
    numbers = rng.normal(size=(300, 1))
    test = is_near_chance(numbers, numbers[:, 0] + rng.normal(size=300), is_regression=True)
    assert not test.is_near_chance and 0.5 < test.statistic < 0.9


@pytest.mark.parametrize(
    ("metric", "labels", "expected"),
    [
        ("rte", [0, 0, 0, 1], 3 / 4),
        ("accuracy_f1", [2, 2, 1, 0, 2], 3 / 5),
        ("mrpc", [0, 0, 1, 1, 1], (6 / 8 + 3 / 5) / 2),  # class 1 always: precision 3/5, recall 1
        ("mrpc", [0] * 9 + [1], 0.9 / 2),  # class 0 always: no F1, but nearly all are right
        ("cola", [0, 0, 1], 0.0),
        ("stsb", [1.0, 2.0, 5.0], 0.0),
    ],
)
def test_what_one_answer_for_all_rows_scores(metric, labels, expected) -> None:
    """A score of 90 is nothing where nine rows of ten have one class; readers must be able to see it."""
    labels = np.array(labels)
    logits = np.eye(3)[labels.astype(int) % 3] if metric != "stsb" else labels[:, None]
    assert evaluate_logits(metric, logits, labels).constant_score == pytest.approx(expected)


def test_a_majority_teacher_with_high_accuracy_is_near_chance() -> None:
    """90 % accuracy on 90 % of one class knows nothing, and its soft targets teach nothing."""
    labels = np.array([0] * 900 + [1] * 100)
    always_zero = np.tile([2.0, -2.0], (1000, 1))
    assert is_near_chance(always_zero, labels, is_regression=False) == (True, 0.0, 2 / math.sqrt(1000))
    constant_number = np.full((1000, 1), 2.5)
    assert is_near_chance(constant_number, labels.astype(np.float32), is_regression=True).is_near_chance


def test_a_weak_but_real_teacher_on_rare_classes_passes() -> None:
    """An accuracy test would stop this teacher: it is less accurate than the majority class, yet far from chance."""
    labels = np.array([0] * 900 + [1] * 100)
    says_one = np.array([True] * 150 + [False] * 750 + [True] * 80 + [False] * 20)  # accuracy 0.83, below 0.90
    logits = np.stack([~says_one, says_one], axis=1).astype(float)
    assert not is_near_chance(logits, labels, is_regression=False).is_near_chance


def test_swapped_labels_are_near_chance() -> None:
    """A teacher with its two labels swapped has a strong correlation of the wrong sign."""
    labels = np.array([0, 1] * 50)
    logits = np.stack([labels, 1 - labels], axis=1).astype(float)
    assert is_near_chance(logits, labels, is_regression=False)[:2] == (True, pytest.approx(-1.0))


@pytest.mark.parametrize("num_classes", [2, 5])
def test_guessing_is_rarely_let_through(num_classes: int) -> None:
    """A bound that is too low lets random heads teach: about 1 in 40 at most may pass."""
    rng = np.random.default_rng(1)
    passed = 0
    for _ in range(400):
        labels = rng.choice(num_classes, 200, p=np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum())
        passed += not is_near_chance(rng.normal(size=(200, num_classes)), labels, is_regression=False).is_near_chance
    assert passed <= 20


def test_chance_needs_a_label() -> None:
    """On the unlabelled test split the check would pass or stop at random."""
    with pytest.raises(DataError, match="none with a label"):
        is_near_chance(np.zeros((2, 2)), np.array([-100, -100]), is_regression=False)


def test_softmax_rows_are_probabilities() -> None:
    """Float32 sums are off by 1e-7, enough to push a confidence of 1 out of the last bin."""
    probabilities = softmax(np.array([[0.0, math.log(3)]], dtype=np.float32))
    assert probabilities.dtype == np.float64
    assert probabilities[0] == pytest.approx([0.25, 0.75], abs=1e-7)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-15)
