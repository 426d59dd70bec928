"""A whole run in seconds: a tiny base model, a few film reviews that it can learn, and a recipe for them."""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import tiny_bert, tiny_tokenizer


#: Label to words that give it away.
SIGNS = {
    "negative": ("awful", "bad", "boring", "dull", "fails", "poor", "slow", "weak", "worst"),
    "positive": ("beautiful", "best", "clever", "funny", "good", "great", "love", "strong", "sweet"),
}


def save_tiny_base(folder: Path) -> Path:
    """An encoder without a head, and its tokenizer, as a folder that a teacher can start from."""
    tiny_bert(num_layers=4, initializer_range=0.02).bert.save_pretrained(folder)
    tiny_tokenizer(folder)
    return folder


def review_rows(num_rows: int, seed: int = 0) -> list[dict[str, str]]:
    """Reviews of different lengths with a label each; the two labels take turns."""
    generator = random.Random(seed)
    rows = []
    for i in range(num_rows):
        label = ("negative", "positive")[i % 2]
        signs = generator.choices(SIGNS[label], k=2)
        rest = generator.choices(("the", "film", "movie", "plot", "cast", "is", "and", "a", "story"), k=i % 7)
        rows.append({"text": " ".join(generator.sample([*signs, *rest], 2 + len(rest))), "label": label})
    return rows


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(folder: Path, base: Path, **sections: Any) -> Path:
    """Data of 64 rows to train on and 24 to score, and a recipe for them, in a folder of their own.

    Args:
        folder: for the files; the run goes to `run` in it.
        base: the model that the teacher starts from.
        **sections: in place of the recipe's own.

    Returns:
        The recipe's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = {
        "learning_rate": 3.0e-3,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "use_cpu": True,
    }
    recipe = {
        "name": "tiny",
        "output_dir": str(folder / "run"),
        "data": {
            "train": str(write_jsonl(folder / "train.jsonl", review_rows(64))),
            "validation": str(write_jsonl(folder / "validation.jsonl", review_rows(24, seed=1))),
            "text": "text",
            "label": "label",
            "labels": ["negative", "positive"],
            "max_length": 32,
        },
        "teacher": {"model": str(base), "finetune": {**training, "num_train_epochs": 8}},
        "training": training,
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path
