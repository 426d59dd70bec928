"""Run folders that look finished, with a tiny student: nothing is trained."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import tiny_bert, tiny_tokenizer


#: Stands in every file of a run that may not be published.
PRIVATE = "a-row-that-is-not-yours"
#: Places of such files; the report's numbers and the history are read for the card, and stay all the same.
_STAYS = (
    "student/training_args.bin",
    "student/optimizer.pt",
    "student/notes.txt",
    "student/.cache/x.json",
    "checkpoints/student/model.safetensors",
    "teacher/model.safetensors",
    "control/model.safetensors",
    "scored/validation.parquet",
    "predictions/validation.jsonl",
    "plots/scores.csv",
    "onnx/rows.txt",
    "results.md",
    "report.html",
    "report.md",
    "logs/events",
    "run.log",
)
RECIPE = {
    "name": "tiny",
    "output_dir": "/home/someone/runs/tiny",
    "seed": 7,
    "data": {
        "train": "/home/someone/reviews/train.jsonl",
        "validation": "/home/someone/reviews/validation.jsonl",
        "text": "text",
        "label": "label",
        "labels": ["negative", "positive"],
        "max_length": 32,
    },
    "teacher": {"model": "/home/someone/models/teacher", "finetune": {"num_train_epochs": 2}},
    "student": {"layers": "alternate"},
    "distillation": {"temperature": 2.0, "alpha": 0.25},
    "training": {"learning_rate": 3.0e-3, "num_train_epochs": 3},
    "control": True,
}


def model_record(num_layers: int, score: float, agreement: float | None, ms: float) -> dict[str, Any]:
    """One model of `results.json`."""
    metrics = {"accuracy": score, "f1": score - 0.005}
    fidelity = agreement and {"agreement": agreement, "kl_nats": 0.1, "pearson": None}
    split = {"score": score, "metrics": metrics, "num_rows": 200, "calibration_error": 0.031, "fidelity": fidelity}
    sizes = {"num_parameters": num_layers * 1_000_000, "size_mb": num_layers * 4.0}
    return {
        "name": "a model",
        "num_layers": num_layers,
        **sizes,
        "latency_ms": {"1": ms, "32": 2 * ms},
        "splits": {"validation": split},
    }


def results_of(recipe: dict[str, Any]) -> dict[str, Any]:
    """A `results.json` for a recipe."""
    return {
        "schema_version": 1,
        "name": recipe["name"],
        "task": recipe["name"],
        "metric": "accuracy_f1",
        "score_name": "accuracy",
        "data": {
            "source": "files: train /home/someone/reviews/train.jsonl, validation /data/val.jsonl",
            "notes": ["3 texts were cut to 32 tokens"],
            "rows": {"train": 1600, "validation": 200},
        },
        "student": {"layers": [0, 2]},
        "distillation": recipe["distillation"],
        "seed": recipe["seed"],
        "models": {
            "teacher": model_record(4, 0.900, None, 8.0),
            "student": model_record(2, 0.855, 0.93, 4.0),
            "control": model_record(2, 0.830, 0.88, 4.0),
        },
        "latency_setting": {"device": "cpu", "num_threads": 2},
        "seconds": {"total": 60.0},
    }


def write_run(folder: Path, recipe: dict[str, Any] = RECIPE, **changes: Any) -> Path:
    """A finished run: records, student, and beside them what must never leave the machine.

    Args:
        folder: the run folder; made here.
        recipe: resolved.
        **changes: keys of `results.json` or `environment`, in place of the usual.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    commit = "c" * 40 if recipe["teacher"]["model"].startswith("google-bert/") else None
    environment = {
        "versions": {"python": "3.11.7", "torch": "2.13.0", "evaluate": None},
        "hardware": {"cpu": "AMD EPYC", "gpus": []},
        "data": {"source": "files", "sha256": {}},
        "teacher": {"model": recipe["teacher"]["model"], "commit": commit, "weights_sha256": "ab" * 32},
    }
    environment["note"] = PRIVATE
    environment |= changes.pop("environment", {})
    history = {"student": [{"loss": 0.5, "step": 10}, {"train_loss": 0.4, "step": 150}], "note": PRIVATE}
    records = {"results": {**results_of(recipe), **changes}, "environment": environment, "history": history}
    records["report"] = {"note": PRIVATE}
    for name, record in records.items():
        (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    labels = {0: "negative", 1: "positive"}
    student = tiny_bert(2, id2label=labels, label2id={label: place for place, label in labels.items()})
    student.save_pretrained(folder / "student")
    tiny_tokenizer(folder / "student")
    for private in _STAYS:
        (folder / private).parent.mkdir(parents=True, exist_ok=True)
        (folder / private).write_text(PRIVATE)
    (folder / "plots/scores.png").write_bytes(b"\x89PNG")
    return folder
