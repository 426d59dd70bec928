"""Metrics: the numbers of sklearn and scipy, offline, and nothing scored that can't be."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from distilbert_kd.errors import DataError, DivergedError
from distilbert_kd.metrics import METRIC_FOLDER, SCORE_NAMES, compute_metrics, is_regression_metric, score


def _classes(num_classes: int, num_rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, num_classes, num_rows)
    predictions = np.where(rng.random(num_rows) < 0.6, labels, rng.integers(0, num_classes, num_rows))
    return predictions, labels


def _numbers(num_rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    labels = rng.uniform(0, 5, num_rows).astype(np.float32)
    return (labels + rng.normal(0, 1, num_rows)).astype(np.float32), labels


def test_classification_metrics_equal_sklearn() -> None:
    """Swapped arguments or the F1 of the wrong class would give plausible numbers that no paper reports."""
    predictions, labels = _classes(2)
    accuracy = accuracy_score(labels, predictions)
    binary_f1 = f1_score(labels, predictions)
    for metric in ("mrpc", "qqp"):
        assert compute_metrics(metric, predictions, labels) == pytest.approx({"accuracy": accuracy, "f1": binary_f1})
    for metric in ("sst2", "qnli", "rte", "wnli", "mnli", "mnli_matched", "mnli_mismatched"):
        assert compute_metrics(metric, predictions, labels) == pytest.approx({"accuracy": accuracy})
    matthews = {"matthews_correlation": matthews_corrcoef(labels, predictions)}
    assert compute_metrics("cola", predictions, labels) == pytest.approx(matthews)


def test_binary_f1_is_that_of_class_one() -> None:
    """F1 of class 0 on MRPC is another number: precision 1/2 and recall 1/1 of class 1 give 2/3."""
    assert compute_metrics("mrpc", [1, 1, 0, 0], [1, 0, 0, 0]) == pytest.approx({"accuracy": 0.75, "f1": 2 / 3})


def test_own_classes_use_the_mean_f1_of_all_classes() -> None:
    """A binary F1 would raise on three classes, and a micro F1 would only repeat the accuracy."""
    predictions, labels = _classes(3)
    expected = {"accuracy": accuracy_score(labels, predictions), "f1": f1_score(labels, predictions, average="macro")}
    assert compute_metrics("accuracy_f1", predictions, labels) == pytest.approx(expected)


def test_regression_metrics_equal_scipy() -> None:
    """Rounding the labels to classes or to half precision would change the correlation in the third digit."""
    predictions, labels = _numbers()
    expected = {
        "pearson": pearsonr(predictions.astype(float), labels.astype(float)).statistic,
        "spearmanr": spearmanr(predictions, labels).statistic,
    }
    for metric in ("stsb", "pearson_spearman"):
        assert compute_metrics(metric, predictions, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", ["mrpc", "cola", "sst2", "stsb", "accuracy_f1"])
def test_evaluate_load_gives_the_same_numbers_offline(metric: str, tmp_path, monkeypatch) -> None:
    """A module that only works inside the package breaks for people who load the folder with `evaluate.load`."""
    import evaluate

    predictions, labels = _numbers() if is_regression_metric(metric) else _classes(2)
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    loaded = evaluate.load(str(METRIC_FOLDER), metric, cache_dir=str(tmp_path / "cache"))
    result = loaded.compute(predictions=predictions, references=labels)
    assert result == pytest.approx(compute_metrics(metric, predictions, labels), abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "predictions", "labels", "expected"),
    [
        ("cola", [1, 1, 1, 1], [0, 1, 0, 1], {"matthews_correlation": 0.0}),
        ("cola", [1, 1], [1, 1], {"matthews_correlation": 0.0}),
        ("stsb", [2.0, 2.0, 2.0], [1.0, 2.0, 3.0], {"pearson": 0.0, "spearmanr": 0.0}),
        ("stsb", [2.0], [1.0], {"pearson": 0.0, "spearmanr": 0.0}),
        ("mrpc", [0, 0], [0, 0], {"accuracy": 1.0, "f1": 0.0}),
    ],
)
def test_constant_predictions_give_zero_and_no_warning(metric: str, predictions, labels, expected) -> None:
    """NaN from an untrained model in the first epoch would poison best-model selection and break results.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compute_metrics(metric, predictions, labels) == expected


def test_unlabelled_rows_are_left_out() -> None:
    """A row with -100 that counts as a wrong answer lowers the score by the share of unlabelled rows."""
    assert compute_metrics("sst2", [1, 0, 1], [1, -100, 0]) == {"accuracy": 0.5}
    predictions, labels = _numbers(20)
    with_gap = np.append(labels, np.float32(-100)), np.append(predictions, np.float32(3))
    assert compute_metrics("stsb", with_gap[1], with_gap[0]) == compute_metrics("stsb", predictions, labels)


@pytest.mark.parametrize("labels", [[], [-100, -100], [float("nan"), float("nan")]])
def test_no_label_at_all_is_refused(labels: list[float]) -> None:
    """A score over no row would be reported as a result."""
    with pytest.raises(DataError, match="at least one labelled row"):
        compute_metrics("sst2", [0] * len(labels), labels)


def test_what_cannot_be_scored_is_refused() -> None:
    """GLUE's -1, logits in place of classes, an unknown metric and NaN predictions would all give some number."""
    with pytest.raises(DataError, match="got -1 in row 1"):
        compute_metrics("rte", [0, 0], [0, -1])
    with pytest.raises(DataError, match="not logits"):
        compute_metrics("rte", [[0.1, 0.9]], [1])
    with pytest.raises(DataError, match="mrpc"):
        compute_metrics("bleu", [0], [0])
    with pytest.raises(DivergedError, match="row 1"):
        compute_metrics("stsb", [1.0, float("nan")], [1.0, 2.0])


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("cola", {"matthews_correlation": 0.5}, 0.5),
        ("sst2", {"accuracy": 0.9}, 0.9),
        ("mrpc", {"accuracy": 0.8, "f1": 0.9}, 0.85),
        ("qqp", {"accuracy": 0.8, "f1": 0.9}, 0.85),
        ("stsb", {"pearson": 0.8, "spearmanr": 0.7}, 0.75),
        ("accuracy_f1", {"accuracy": 0.8, "f1": 0.5}, 0.8),
        ("pearson_spearman", {"pearson": 0.8, "spearmanr": 0.7}, 0.75),
    ],
)
def test_score_is_the_number_that_glue_averages(metric: str, values: dict[str, float], expected: float) -> None:
    """Taking F1 alone on MRPC, or accuracy on CoLA, makes the table incomparable with GLUE."""
    assert score(metric, values) == pytest.approx(expected)


def test_every_metric_has_a_score() -> None:
    """A metric that computes but has no main number fails after the whole training."""
    for metric in SCORE_NAMES:
        predictions, labels = _numbers(20) if is_regression_metric(metric) else _classes(2, 20)
        assert isinstance(score(metric, compute_metrics(metric, predictions, labels)), float)


def test_importing_the_metrics_does_not_import_evaluate() -> None:
    """`evaluate` imports for seven seconds: `--help` must not wait for it."""
    code = "import sys, distilbert_kd.metrics; sys.exit('evaluate' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
