"""The program that the package is measured against: a distillation as it is usually written for the stock Trainer.

The loss is that of the widely copied subclass; started again, it goes on from the last checkpoint that
`transformers` finds, as the scripts of that project do.
"""

import json
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from tests.reliability.places import Place
from tests.tiny import tiny_bert


class UsualTrainer(Trainer):
    """A student between labels and a teacher."""

    def __init__(self, *args: Any, teacher: PreTrainedModel, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.eval()

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs)
        wanted = ask_teacher(self.teacher, inputs)
        soft = functional.kl_div(
            functional.log_softmax(outputs.logits / 2, -1), functional.softmax(wanted / 2, -1), reduction="batchmean"
        )
        loss = 0.5 * outputs.loss + 0.5 * 4 * soft
        return (loss, outputs) if return_outputs else loss


@torch.no_grad()
def ask_teacher(teacher: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    return teacher(**{name: value for name, value in inputs.items() if name != "labels"}).logits


def run(place: Place, settings: dict[str, Any]) -> None:
    """Trains 12 steps of 8 rows, with a checkpoint after each 4, and saves the student."""
    files = {split: str(place.inputs / f"{split}.jsonl") for split in ("train", "validation")}
    rows = load_dataset("json", data_files=files, cache_dir=str(place.cache))
    rows["train"] = rows["train"].select(range(32))
    tokenizer = AutoTokenizer.from_pretrained(place.inputs / "classifier")
    number = {"negative": 0, "positive": 1}
    rows = rows.map(
        lambda row: {**tokenizer(row["text"], truncation=True), "labels": number[row["label"]]},
        remove_columns=["text", "label"],
    )
    arguments = TrainingArguments(
        output_dir=str(place.checkpoints),
        **{
            "num_train_epochs": 3,
            "per_device_train_batch_size": 8,
            "learning_rate": 3e-3,
            "save_strategy": "epoch",
            "save_total_limit": 2,
            "logging_steps": 2,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "dataloader_pin_memory": False,
            **settings,
        },
    )
    trainer = UsualTrainer(
        model=tiny_bert(2, seed=1),
        teacher=AutoModelForSequenceClassification.from_pretrained(place.inputs / "classifier"),
        args=arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    last = get_last_checkpoint(str(place.checkpoints)) if place.checkpoints.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(str(place.run / "student"))


def write_inputs(inputs: Path) -> None:
    """A teacher for it, beside the rows."""
    from tests.tiny import tiny_tokenizer

    tiny_bert(4).save_pretrained(inputs / "classifier")
    tiny_tokenizer(inputs / "classifier")


def main(place: Place, overrides: list[str]) -> None:
    """Takes overrides as the package does: of `section.key=value` the key and the value, which is JSON."""
    pairs = (override.split("=", 1) for override in overrides)
    run(place, {name.rpartition(".")[2]: json.loads(value) for name, value in pairs})
