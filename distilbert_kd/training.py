"""One training, the same for all three models of a run: teacher, student and control."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainingArguments,
)

from distilbert_kd.errors import RecipeError
from distilbert_kd.evaluation import evaluate_logits
from distilbert_kd.losses.schedule import Schedule
from distilbert_kd.progress import ProgressLines
from distilbert_kd.trainer import DistillationTrainer


__all__ = ["Trained", "best_epoch", "prediction_arguments", "train_model", "training_arguments"]

logger = logging.getLogger(__name__)

#: What a recipe leaves open. Score and losses of each epoch are kept, checkpoints are not.
_DEFAULTS = {
    "eval_strategy": "epoch",
    "train_sampling_strategy": "group_by_length",
    "logging_nan_inf_filter": False,  # it hides a broken loss, and waits for the device at each step
    "logging_steps": 0.05,  # a share of all steps
    "save_strategy": "no",
    "per_device_eval_batch_size": 32,
    "report_to": "none",
    "ddp_find_unused_parameters": False,  # every weight of these models is used
}


#: Settings that predictions share with training, by the start of their names.
_OF_PREDICTION = (
    "per_device_eval",
    "eval_accumulation",
    "dataloader_num",
    "bf16",
    "fp16",
    "tf32",
    "use_cpu",
    "torch_compile",
)


@dataclass(frozen=True)
class Trained:
    """What a training left behind.

    Attributes:
        trainer: Holds the model, on its device, and knows how to save it.
        history: Losses and scores by step, as the Trainer logged them.
        seconds: Wall time of the training, its evaluations included.
    """

    trainer: DistillationTrainer
    history: list[dict[str, float]]
    seconds: float


def training_arguments(
    values: Mapping[str, Any], where: str, output_dir: Path, seed: int, show_bars: bool
) -> TrainingArguments:
    """The arguments of one training.

    Args:
        values: the recipe's section, spelled as `TrainingArguments` spells it.
        where: the section's name, for messages.
        output_dir: for checkpoints, if any are wanted.
        seed: of rows, dropout and new weights.
        show_bars: whether progress bars are drawn.

    Raises:
        RecipeError: `TrainingArguments` refuses a value.
    """
    settings = {
        **_DEFAULTS,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": not show_bars,
        **values,
    }
    try:
        return TrainingArguments(output_dir=str(output_dir), seed=seed, **settings)
    except (TypeError, ValueError, ImportError) as error:
        raise RecipeError(
            f"Expected settings that TrainingArguments takes under {where!r}, got: {error} Correct the recipe."
        ) from error


def prediction_arguments(
    values: Mapping[str, Any], where: str, output_dir: Path, show_bars: bool
) -> TrainingArguments:
    """The arguments of predictions: of the recipe's section, what concerns device, precision and batches.

    Raises:
        RecipeError: `TrainingArguments` refuses a value.
    """
    chosen = {name: value for name, value in values.items() if name.startswith(_OF_PREDICTION)}
    return training_arguments({**chosen, "eval_strategy": "no"}, where, output_dir, 0, show_bars)


def best_epoch() -> dict[str, Any]:
    """Arguments that keep the epoch with the best score on the main evaluation split."""
    return {
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "score",
        "greater_is_better": True,
        "save_total_limit": 1,
        "save_only_model": True,
    }


def train_model(
    what: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: datasets.Dataset,
    evaluation_rows: datasets.Dataset,
    metric: str,
    arguments: TrainingArguments,
    *,
    teacher: PreTrainedModel | None = None,
    temperature: float | Schedule = 2.0,
    alpha: float | Schedule = 0.0,
) -> Trained:
    """Trains one model: on the labels alone without a teacher (the standard objective), distilled with one.

    Args:
        what: "teacher", "student" or "control", for progress.
        model: the model to train.
        tokenizer: pads the rows, and is saved with the model.
        train_rows: tokenised, with `labels`.
        evaluation_rows: tokenised, with `labels`; scored after each epoch.
        metric: see `distilbert_kd.metrics`.
        arguments: of this training.
        teacher: a frozen classifier with the same outputs.
        temperature: T of the soft targets.
        alpha: weight of the soft targets; 0 without a teacher.

    Returns:
        The trained model in its trainer, its history and its time.

    Raises:
        TeacherError: the teacher doesn't fit the model.
        DataError: a label doesn't.
        DivergedError: a loss or weight is not finite.
    """

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        result = evaluate_logits(metric, prediction.predictions, prediction.label_ids)
        return {"score": result.score, **result.metrics}

    trainer = DistillationTrainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        eval_dataset=evaluation_rows,
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
        teacher=teacher,
        temperature=temperature,
        alpha=alpha,
    )
    if arguments.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(ProgressLines(what))
    logger.info("%s: training on %d rows, %s parameters", what, len(train_rows), f"{model.num_parameters():,}")
    start = time.perf_counter()
    trainer.train()
    return Trained(trainer, trainer.state.log_history, time.perf_counter() - start)
