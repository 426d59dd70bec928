"""One training, the same for all three models of a run: teacher, student and control."""

import copy
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from accelerate.utils import gather_object
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from distilbert_kd.deep_terms import Term
from distilbert_kd.errors import RecipeError, StoppedError
from distilbert_kd.evaluation import evaluate_logits
from distilbert_kd.interrupts import stopping_on_signals
from distilbert_kd.length_grouping import row_lengths
from distilbert_kd.losses.schedule import Schedule
from distilbert_kd.prepared_arguments import new_trainer
from distilbert_kd.processes import failing_together
from distilbert_kd.progress import ProgressLines
from distilbert_kd.resumable_trainer import ResumableTrainer
from distilbert_kd.resuming import Continuation
from distilbert_kd.sharding import is_sharded, sharding, take_up
from distilbert_kd.storage import storage_errors, sync
from distilbert_kd.task_rows import Reader
from distilbert_kd.trainer import DistillationTrainer


__all__ = [
    "Trained",
    "attention_as",
    "logits_of",
    "obeying_signals",
    "run_training",
    "save_model_folder",
    "take_back",
    "train_model",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a training left behind, beside the model.

    Attributes:
        history: Losses and scores by step, as the Trainer logged them.
        seconds: Wall time of the training, its evaluations included.
    """

    history: list[dict[str, float]]
    seconds: float


def train_model(
    what: str,
    reader: Reader,
    metric: str,
    arguments: TrainingArguments,
    folder: Path,
    *,
    teacher: PreTrainedModel | None = None,
    teacher_logits: datasets.Dataset | None = None,
    temperature: float | Schedule = 2.0,
    alpha: float | Schedule = 0.0,
    alpha_augmented: float = 1.0,
    terms: Mapping[str, Term] | None = None,
    attn_implementation: str | None = None,
    continuation: Continuation | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trained:
    """Trains one model and saves it: on the labels alone without a teacher (the standard objective), or distilled.

    Args:
        what: "teacher", "student" or "control", for progress.
        reader: the model, whose weights become the trained ones and which is left in eval mode; its tokenizer, which
            is saved with it; and its rows, of which the main evaluation split is scored after each epoch.
        metric: see `distilbert_kd.metrics`.
        arguments: of this training.
        folder: for the trained model: config, safetensors and tokenizer.
        teacher: a frozen classifier with the same outputs, to be asked online; or
        teacher_logits: its answers to the training rows, as a column.
        temperature: T of the soft targets.
        alpha: weight of the soft targets; 0 without a teacher.
        alpha_augmented: the same for augmented rows.
        terms: deeper terms by name; for a teacher that is asked online.
        attn_implementation: of the model and the teacher while it is trained; None for theirs.
        continuation: where to go on from; with it, SIGINT and SIGTERM let it save and stop.
        callbacks: of the Trainer, beside its own.

    Returns:
        The history and the time.

    Raises:
        TeacherError: the teacher doesn't fit the model.
        DataError: a label doesn't.
        DivergedError: a loss or weight is not finite.
        StorageError: the model, or a checkpoint on the way, can't be written.
        StoppedError: a signal told it to stop.
    """
    model, tokenizer, rows = reader.model, reader.tokenizer, reader.rows
    train_rows, main_rows = rows.train, rows.evaluation[rows.main_split]
    if teacher_logits is not None:
        train_rows = datasets.concatenate_datasets([train_rows, teacher_logits], axis=1)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        result = evaluate_logits(metric, logits_of(prediction.predictions), np.asarray(prediction.label_ids))
        return {"score": result.score, **result.metrics}

    trained = copy.deepcopy(model) if is_sharded(arguments) else model  # shards can't be put together in place
    with sharding(arguments):
        trainer = new_trainer(
            DistillationTrainer,
            model=trained,
            args=arguments,
            train_dataset=train_rows,
            eval_dataset=main_rows.select(np.argsort(row_lengths(main_rows), kind="stable")),  # scores know no order
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            callbacks=list(callbacks),
            teacher=teacher,
            temperature=temperature,
            alpha=alpha,
            alpha_augmented=alpha_augmented,
            terms=terms,
            first_position_only=True,  # for all models: without terms, student and control draw the same dropout
        )
        if arguments.disable_tqdm:
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(ProgressLines(what))
        logger.info("%s: training on %d rows, %s parameters", what, len(train_rows), f"{model.num_parameters():,}")
        start = time.perf_counter()
        with obeying_signals(trainer, folder, continuation):
            with (
                storage_errors(Path(str(arguments.output_dir))),
                attention_as(attn_implementation, trained, *([] if teacher is None else [teacher])),
            ):
                run_training(trainer, what, continuation)
            seconds = time.perf_counter() - start
            save_model_folder(trainer, folder, continuation, seconds)
    if trained is model:
        take_back(trainer, model)
    else:
        take_up(model, str(folder))
    return Trained(trainer.state.log_history, seconds)


@contextmanager
def attention_as(implementation: str | None, *models: PreTrainedModel) -> Iterator[None]:
    """Within it, the models compute attention in another way; None leaves them as they are.

    Args:
        implementation: as `PreTrainedModel.set_attn_implementation` takes it.
        *models: are as before afterwards, because FlashAttention can't be asked in float32.

    Raises:
        RecipeError: a model has no such attention.
    """
    if implementation is None:
        yield
        return
    before = [model.config._attn_implementation or "eager" for model in models]
    try:
        for model in models:
            model.set_attn_implementation(implementation)
            if model.config._attn_implementation != implementation:  # upstream says so in a log line only
                raise RecipeError(
                    f"Expected a model that can compute attention as {implementation!r}, got {type(model).__name__}, "
                    f"which stays with {model.config._attn_implementation!r}. Leave attn_implementation out."
                )
        yield
    finally:
        for model, own in zip(models, before, strict=True):
            model.set_attn_implementation(own)


def take_back(trainer: Trainer, model: PreTrainedModel) -> None:
    """The model as it was before the Trainer.

    Accelerate leaves its autocast in the model's forward, and a mark that the model needs none any more: without this
    a model that was once in bf16 would be timed and asked in bf16 for good, and one that was in float32 in float32.

    Args:
        trainer: that is done.
        model: its model, which is left in eval mode.
    """
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    for left_behind in ("forward", "_is_accelerate_prepared"):
        vars(model).pop(left_behind, None)
    model.eval()


def logits_of(predictions: np.ndarray | tuple[np.ndarray, ...]) -> np.ndarray:
    """The logits of a Trainer's predictions, which hold hidden states too if the model's config asks for them."""
    return predictions[0] if isinstance(predictions, tuple) else predictions


@contextmanager
def obeying_signals(trainer: ResumableTrainer, folder: Path, continuation: Continuation | None) -> Iterator[None]:
    """Within it, a training is trained and its model saved, and SIGINT and SIGTERM let both end well.

    In the training a signal is obeyed after the step. One that comes later, in the last evaluation, the last
    checkpoint or while the model is written, is obeyed at the end, by all processes.

    Args:
        trainer: that is ready.
        folder: for the model.
        continuation: None for a training that ends as Python does on signals.

    Raises:
        StoppedError: a signal told it to stop; all is saved.
    """
    if continuation is None:
        yield
        return
    with stopping_on_signals() as is_stop_wanted:
        trainer.is_stop_wanted = is_stop_wanted
        yield
        is_told = any(gather_object([is_stop_wanted()]))
    if is_told:
        raise StoppedError(
            f"Told to stop after the last step of {trainer.state.max_steps}. The model is done and saved in {folder}. "
            "Start the same command again to go on from there."
        )


def run_training(trainer: ResumableTrainer, what: str, continuation: Continuation | None) -> None:
    """Trains; with a continuation, from its checkpoint on.

    Args:
        trainer: that is ready.
        what: is trained, for progress.
        continuation: None for a training that starts anew.

    Raises:
        StoppedError: a signal told it to stop; all is saved.
    """
    if continuation is None:
        trainer.train()
        return
    trainer.identity = continuation.identity
    checkpoint = trainer.checked = continuation.checkpoint
    if checkpoint is not None:
        logger.info("%s: going on from %s", what, checkpoint)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def save_model_folder(
    trainer: ResumableTrainer, folder: Path, continuation: Continuation | None = None, seconds: float = 0.0
) -> None:
    """Writes a plain model folder, which is there whole or not at all. The Trainer's pickle of arguments is left out.

    Args:
        trainer: that is done.
        folder: gets its name when all of it is on the disk.
        continuation: is told of the model before that.
        seconds: of the training.

    Raises:
        StorageError: it can't be written.
    """
    written = folder.parent / ".partial" / folder.name
    is_main = trainer.is_world_process_zero()
    num_bytes = sum(weight.numel() * weight.element_size() for weight in trainer.model.parameters())
    if is_main:
        shutil.rmtree(written, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    with trainer.saving_together(), storage_errors(folder, num_bytes):
        trainer.save_model(str(written))
    with failing_together(), storage_errors(folder, num_bytes):
        if is_main:
            (written / "training_args.bin").unlink(missing_ok=True)
            for path in (*written.iterdir(), written):
                sync(path)
    if continuation is not None:
        continuation.on_written(written, trainer.state.log_history, seconds)
    with failing_together(), storage_errors(folder, num_bytes):
        if is_main:
            written.rename(folder)
            written.parent.rmdir()
            sync(folder.parent)
