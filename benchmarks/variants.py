"""One training, in a process of its own: `speed.py` starts this file once for each variant and round.

What is timed begins with tokenised rows and loaded models and ends with a trained student. Each variant has the same
rows, the same weights at the start, the same number of steps, learning rates, clipping and loss.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from bare_loop import train_bare
from copied_pattern import CopiedTrainer
from cost import Cost, measured, peak_memory_mb
from job import ALPHA, MAX_LENGTH, TEMPERATURE, Job, training_arguments
from transformers import DataCollatorWithPadding, PreTrainedModel, set_seed

from distilbert_kd.student.build import build_student, freeze_embeddings
from distilbert_kd.teacher_cache import cached_teacher_logits
from distilbert_kd.trainer import DistillationTrainer


__all__ = ["VARIANTS", "Outcome", "Trial"]

NUM_LAYERS = 3


@dataclass(frozen=True)
class Trial:
    """What a variant is given.

    Attributes:
        job: Rows and teacher.
        num_epochs: Passes over the rows.
        seed: Of order and dropout.
        cache_dir: For the teacher's logits; empty, but for a second run.
    """

    job: Job
    num_epochs: int
    seed: int
    cache_dir: Path


@dataclass(frozen=True)
class Outcome:
    """What a variant gives back.

    Attributes:
        student: Trained.
        cost: Of all that was timed.
        teacher_pass: The part of it that went to a pass of the teacher over the rows, where there is such a pass.
    """

    student: PreTrainedModel
    cost: Cost
    teacher_pass: Cost | None = None


def copied(trial: Trial, pads_to_largest: bool) -> Outcome:
    """The pattern that most projects copy: the teacher is asked in `compute_loss`, at every step."""
    teacher, tokenizer, rows = trial.job.teacher(), trial.job.tokenizer(), trial.job.rows("train")
    student = build_student(teacher, num_layers=NUM_LAYERS)
    padding: Any = "max_length" if pads_to_largest else True
    set_seed(trial.seed)
    with measured() as cost:
        CopiedTrainer(
            model=student,
            args=training_arguments(trial.num_epochs, trial.seed),
            train_dataset=rows,
            data_collator=DataCollatorWithPadding(tokenizer, padding=padding, max_length=MAX_LENGTH),
            teacher_model=teacher,
        ).train()
    return Outcome(student, cost)


def ours(
    trial: Trial,
    has_cache: bool = False,
    is_grouped: bool = False,
    is_first_position_only: bool = False,
    is_frozen: bool = False,
) -> Outcome:
    """`DistillationTrainer` with some of its levers, in the order of `distilbert_kd.pipeline`."""
    teacher, tokenizer, rows = trial.job.teacher(), trial.job.tokenizer(), trial.job.rows("train")
    texts, student = trial.job.texts(), build_student(teacher, num_layers=NUM_LAYERS)
    if is_frozen:
        freeze_embeddings(student)
    strategy = "group_by_length" if is_grouped else "random"
    arguments = training_arguments(trial.num_epochs, trial.seed, train_sampling_strategy=strategy)
    set_seed(trial.seed)
    teacher_pass = Cost()
    with measured() as cost:
        if has_cache:
            with measured() as teacher_pass:
                logits = cached_teacher_logits(teacher, tokenizer, texts, rows, MAX_LENGTH, arguments, trial.cache_dir)
            rows = datasets.concatenate_datasets([rows, logits], axis=1)
            del teacher  # while the student trains, no teacher is in memory
        DistillationTrainer(
            model=student,
            args=arguments,
            train_dataset=rows,
            processing_class=tokenizer,
            teacher=None if has_cache else teacher,
            temperature=TEMPERATURE,
            alpha=ALPHA,
            first_position_only=is_first_position_only,
        ).train()
    return Outcome(student, cost, teacher_pass if has_cache else None)


def limit(trial: Trial, is_frozen: bool) -> Outcome:
    """The limit: a bare loop over batches that are made beforehand; see `bare_loop`."""
    student = build_student(trial.job.teacher(), num_layers=NUM_LAYERS)
    if is_frozen:
        freeze_embeddings(student)
    set_seed(trial.seed)
    teacher_pass, training = train_bare(student, trial.job, trial.num_epochs, trial.seed)
    cost = Cost(teacher_pass.cpu_s + training.cpu_s, teacher_pass.wall_s + training.wall_s)
    return Outcome(student, cost, teacher_pass)


def textbrewer(trial: Trial, is_best: bool) -> Outcome:
    """TextBrewer, as its documentation shows it or at its best; see `textbrewer_pattern`."""
    from textbrewer_pattern import train_with_textbrewer

    teacher = trial.job.teacher()
    student = build_student(teacher, num_layers=NUM_LAYERS)
    set_seed(trial.seed)
    cost = train_with_textbrewer(student, teacher, trial.job, trial.num_epochs, is_best)
    return Outcome(student, cost)


_ALL = {"has_cache": True, "is_grouped": True, "is_first_position_only": True}

VARIANTS: Mapping[str, Callable[[Trial], Outcome]] = {
    "copied": partial(copied, pads_to_largest=True),
    "copied_dynamic": partial(copied, pads_to_largest=False),
    "textbrewer": partial(textbrewer, is_best=False),
    "textbrewer_best": partial(textbrewer, is_best=True),
    "grouping": partial(ours, is_grouped=True),
    "cache": partial(ours, has_cache=True),
    "first_position": partial(ours, is_first_position_only=True),
    "frozen": partial(ours, is_frozen=True),
    "online": partial(ours, is_grouped=True, is_first_position_only=True),
    "ours": partial(ours, **_ALL),
    "ours_again": partial(ours, **_ALL),
    "ours_one_epoch": partial(ours, **_ALL),
    "ours_frozen": partial(ours, **_ALL, is_frozen=True),
    "ours_frozen_again": partial(ours, **_ALL, is_frozen=True),
    "ours_frozen_one_epoch": partial(ours, **_ALL, is_frozen=True),
    "limit": partial(limit, is_frozen=False),
    "limit_frozen": partial(limit, is_frozen=True),
}


def main() -> None:
    """Runs one variant and writes its record."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    for name in ("out", "cache-dir", "record"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("rows", "epochs", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    torch.set_num_threads(options.threads)
    job = Job("sst2", options.rows, options.out)
    outcome = VARIANTS[options.variant](Trial(job, options.epochs, options.seed, options.cache_dir))
    record = {
        "variant": options.variant,
        "seed": options.seed,
        "row_visits": options.rows * options.epochs,
        **asdict(outcome.cost),
        "pass_cpu_s": outcome.teacher_pass.cpu_s if outcome.teacher_pass else 0.0,
        "pass_wall_s": outcome.teacher_pass.wall_s if outcome.teacher_pass else 0.0,
        "peak_memory_mb": peak_memory_mb(),  # read before the scoring
        **job.score(outcome.student),
    }
    options.record.write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
