"""GLUE's own metrics as an `evaluate.Metric` that needs no Hub.

`evaluate.load("glue", task)` downloads its code; this module is package data and gives the same keys. It imports
nothing of the package, so that `evaluate.load("<this folder>", task)` works too. One import per line: the import
scanner of `evaluate` is a regular expression that takes `import a, b` for a library named `a,`.

Source: Wang et al. 2019, "GLUE: A Multi-Task Benchmark", table 1, https://arxiv.org/abs/1804.07461
"""

from collections.abc import Callable
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef


ACCURACY = ("mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "sst2", "wnli")
ACCURACY_AND_BINARY_F1 = ("mrpc", "qqp")
MATTHEWS = ("ax", "cola")
CORRELATION = ("pearson_spearman", "stsb")

_CITATION = """\
@inproceedings{wang2019glue,
  title={{GLUE}: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding},
  author={Wang, Alex and Singh, Amanpreet and Michael, Julian and Hill, Felix and Levy, Omer and Bowman, Samuel R.},
  booktitle={International Conference on Learning Representations},
  year={2019}
}
"""

_INPUTS = """
Args:
    predictions: one class number (numbers of type float for the two correlation metrics) per row.
    references: the labels, as many.
Returns:
    accuracy and f1 in [0, 1]; matthews_correlation, pearson and spearmanr in [-1, 1]. F1 is that of class 1 for
    "mrpc" and "qqp", as in GLUE, and the mean over the classes for "accuracy_f1". A correlation of a constant is
    0.0.
"""


class DistillationGlue(evaluate.Metric):
    """Metric named by `config_name`: a GLUE task, "accuracy_f1" (own classes) or "pearson_spearman" (own numbers)."""

    def _info(self) -> evaluate.MetricInfo:
        names = (*ACCURACY, *ACCURACY_AND_BINARY_F1, *MATTHEWS, *CORRELATION, "accuracy_f1")
        if self.config_name not in names:
            raise ValueError(
                f"Expected the name of a metric, one of {', '.join(sorted(names))}, got {self.config_name!r}. "
                'Name it: evaluate.load(folder, "mrpc").'
            )
        kind = datasets.Value("float64" if self.config_name in CORRELATION else "int64")
        return evaluate.MetricInfo(
            description="The metrics of the GLUE tasks, and of own classification and regression data.",
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": kind, "references": kind}),  # format="numpy" would give float32
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        if len(references) == 0:
            raise ValueError("Expected at least one labelled row to score, got none. Add rows before compute().")
        return self._values(np.asarray(predictions), np.asarray(references))

    def _values(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if self.config_name in CORRELATION:
            return {
                "pearson": _correlation(pearsonr, predictions, references),
                "spearmanr": _correlation(spearmanr, predictions, references),
            }
        if self.config_name in MATTHEWS:
            return {"matthews_correlation": _correlation(matthews_corrcoef, references, predictions)}
        values = {"accuracy": float(np.mean(predictions == references))}
        if self.config_name in ACCURACY_AND_BINARY_F1:
            values["f1"] = float(f1_score(references, predictions, average="binary", zero_division=0.0))
        elif self.config_name == "accuracy_f1":
            values["f1"] = float(f1_score(references, predictions, average="macro", zero_division=0.0))
        return values


def _correlation(function: Callable[..., Any], first: np.ndarray, second: np.ndarray) -> float:
    """`function(first, second)`, and 0.0 where it is 0/0: a constant tells nothing about the other side."""
    if np.all(first == first[0]) or np.all(second == second[0]):
        return 0.0
    value = function(first, second)
    return float(getattr(value, "statistic", value))
