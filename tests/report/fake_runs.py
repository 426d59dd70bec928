"""A run folder as a run leaves it, made of records: nothing is trained."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import yaml

from distilbert_kd.evaluation import evaluate_logits
from distilbert_kd.metrics import SCORE_NAMES
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.scored_rows import write_scored_rows


ARMS = ("teacher", "student", "control")


def fake_run(
    root: Path,
    metric: str = "accuracy_f1",
    label_names: tuple[str, ...] | None = ("negative", "positive"),
    num_rows: int = 60,
    seed: int = 42,
    texts: list[str] | None = None,
    models: tuple[str, ...] = ARMS,
    **changes: Any,
) -> Path:
    """Writes a run folder whose records agree with each other.

    Args:
        root: the folder; it is made.
        metric: see `distilbert_kd.metrics`.
        label_names: of the classes; None for regression.
        num_rows: of the one split, "validation".
        seed: of the run; it also draws the logits.
        texts: of the first rows.
        models: of the run.
        **changes: of the recipe's sections.

    Returns:
        The folder.
    """
    folder = RunFolder(root)
    root.mkdir(parents=True)
    logits, labels = _answers(label_names, num_rows, seed, models)
    split = {arm: evaluate_logits(metric, values, labels, logits["teacher"]) for arm, values in logits.items()}
    recipe = {"name": "fake", "seed": seed, "distillation": {"temperature": 2.0, "alpha": 0.5}, **changes}
    results = {
        "schema_version": 1,
        "name": recipe["name"],
        "task": "fake",
        "metric": metric,
        "score_name": SCORE_NAMES[metric],
        "data": {"source": "made up", "notes": [], "rows": {"train": 100, "validation": num_rows}},
        "student": {"layers": [0, 2, 4]},
        "distillation": recipe["distillation"],
        "seed": seed,
        "models": {
            arm: {
                "name": f"the {arm}",
                "num_layers": 6 if arm == "teacher" else 3,
                "num_parameters": 2_000_000 if arm == "teacher" else 1_500_000,
                "size_mb": 8.0 if arm == "teacher" else 6.0,
                "latency_ms": {"1": 4.0 if arm == "teacher" else 2.0, "32": 1.0},
                "splits": {"validation": split[arm].to_dict() | {"fidelity": None}}
                if arm == "teacher"
                else {"validation": split[arm].to_dict()},
            }
            for arm in models
        },
        "latency_setting": {"device": "cpu", "num_threads": 1},
        "seconds": {"distillation": 2.0, "total": 3.0},
    }
    history = {
        arm: [
            {"loss": 1.0 / step, "hard_loss": 0.5 / step, "soft_loss": 0.7 / step, "step": step}
            for step in range(1, 4)
        ]
        + [{"eval_score": 0.8, "step": 3}]
        for arm in models
    }
    environment = {"versions": {"python": "3.11"}, "data": {"sha256": {"validation": "0" * 64}}, "seed": seed}
    folder.results.write_text(json.dumps(results), "utf-8")
    folder.history.write_text(json.dumps(history), "utf-8")
    folder.environment.write_text(json.dumps(environment), "utf-8")
    folder.recipe.write_text(yaml.safe_dump(recipe), "utf-8")
    written = [*(texts or []), *(f"row {i}" for i in range(num_rows))][:num_rows]
    rows = datasets.Dataset.from_dict({"text": written, "label": labels.tolist()})
    write_scored_rows(folder.scored, "validation", rows, logits, label_names)
    return root


def _answers(
    label_names: tuple[str, ...] | None, num_rows: int, seed: int, models: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(seed)
    if label_names is None:
        labels = generator.uniform(0, 5, num_rows).astype(np.float32)
        return {
            arm: (labels + generator.normal(0, 0.3 + 0.2 * i, num_rows)).astype(np.float32)[:, None]
            for i, arm in enumerate(models)
        }, labels
    labels = generator.integers(len(label_names), size=num_rows)
    truth = 2 * np.eye(len(label_names))[labels]
    noise = generator.normal(0, 1, truth.shape)
    return {
        arm: (truth + noise + generator.normal(0, 0.2 + 0.4 * i, truth.shape)).astype(np.float32)
        for i, arm in enumerate(models)
    }, labels
