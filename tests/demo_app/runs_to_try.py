"""A finished run with tiny models in it, to be tried on the page."""

import json
from pathlib import Path
from typing import Any

from tests.report.fake_runs import fake_run
from tests.tiny import tiny_bert, tiny_tokenizer


SCRIPT = "<script>document.title = 'taken'</script> <img src=x onerror=\"document.title = 'taken'\">"


def save_model(folder: Path, labels: tuple[str, ...] | None, num_layers: int, seed: int = 0) -> Path:
    """A classifier with its tokenizer; None: a model that gives a number."""
    names = {} if labels is None else {"id2label": dict(enumerate(labels))}
    names |= {} if labels is None else {"label2id": {label: place for place, label in enumerate(labels)}}
    model = tiny_bert(num_layers, num_labels=1 if labels is None else len(labels), seed=seed, **names)
    model.config.problem_type = "regression" if labels is None else "single_label_classification"
    model.save_pretrained(folder)
    tiny_tokenizer(folder)
    return folder


def run_to_try(
    root: Path, labels: tuple[str, ...] | None = ("negative", "positive"), has_teacher: bool = True, **data: Any
) -> Path:
    """A run folder with a student, maybe a teacher, and scored rows of which one is markup.

    Args:
        root: the folder; it is made.
        labels: of the classes; None for regression.
        has_teacher: whether the teacher is in the folder.
        **data: keys of the recipe's section.

    Returns:
        The folder.
    """
    metric = "accuracy_f1" if labels else "pearson_spearman"
    section = {"train": "train.jsonl", "validation": "validation.jsonl", "text": "text", "label": "label"}
    section |= {"labels": list(labels)} if labels else {"problem_type": "regression"}
    section |= {"max_length": 16, **data}
    teacher = {"model": "base", "finetune": {"num_train_epochs": 1}}
    texts = [f"{SCRIPT} row {i}" for i in range(60)]
    fake_run(root, metric, labels, texts=texts, data=section, teacher=teacher)
    save_model(root / "student", labels, 2)
    if has_teacher:
        save_model(root / "teacher", labels, 4)
    return root


def name_teacher(run: Path, **teacher: Any) -> None:
    """Makes the run one whose teacher came from elsewhere, and says which weights it had."""
    import yaml

    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "teacher": teacher}))
    environment = json.loads((run / "environment.json").read_text())
    environment["teacher"] = {"weights_sha256": "0" * 64}
    (run / "environment.json").write_text(json.dumps(environment))
