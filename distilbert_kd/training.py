"""One training, the same for all three models of a run: teacher, student and control."""

import copy
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from torch import distributed, nn
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.utils.import_utils import is_flash_attn_2_available

from distilbert_kd.deep_terms import Term
from distilbert_kd.errors import RecipeError
from distilbert_kd.evaluation import evaluate_logits
from distilbert_kd.hardware import hardware_settings
from distilbert_kd.interrupts import stopping_on_signals
from distilbert_kd.length_grouping import row_lengths
from distilbert_kd.losses.schedule import Schedule
from distilbert_kd.progress import ProgressLines
from distilbert_kd.resumable_trainer import ResumableTrainer
from distilbert_kd.resuming import Continuation
from distilbert_kd.sharding import is_sharded, load_whole_models, sharding, take_up, whole_models
from distilbert_kd.storage import storage_errors, sync
from distilbert_kd.task_rows import Reader
from distilbert_kd.trainer import DistillationTrainer


__all__ = [
    "Trained",
    "attention_as",
    "best_epoch",
    "check_attention",
    "each_epoch",
    "logits_of",
    "new_trainer",
    "prediction_arguments",
    "run_training",
    "save_model_folder",
    "take_back",
    "train_model",
    "training_arguments",
]

logger = logging.getLogger(__name__)

AnyTrainer = TypeVar("AnyTrainer", bound=Trainer)

#: What a recipe leaves open. Score and losses of each epoch are kept, checkpoints are not.
_DEFAULTS: dict[str, Any] = {
    "eval_strategy": "epoch",
    "train_sampling_strategy": "group_by_length",
    "logging_nan_inf_filter": False,  # it hides a broken loss, and waits for the device at each step
    "logging_steps": 0.05,  # a share of all steps
    "save_strategy": "no",
    "per_device_eval_batch_size": 32,
    "report_to": "none",
    "ddp_find_unused_parameters": False,  # every weight of these models is used
    # Seconds that a process waits for one that works alone, on text or files. That one died, the launcher notices.
    "ddp_timeout": 4 * 60 * 60,
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
    "ddp_timeout",
)


@dataclass(frozen=True)
class Trained:
    """What a training left behind, beside the model.

    Attributes:
        history: Losses and scores by step, as the Trainer logged them.
        seconds: Wall time of the training, its evaluations included.
    """

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

    Returns:
        The arguments, and a Trainer was made of them: what it refuses is found before anything is loaded.

    Raises:
        RecipeError: `TrainingArguments` or `Trainer` refuses a value, or a package for it is missing.
    """
    settings = {
        **_DEFAULTS,
        **_hardware_settings(values),
        "disable_tqdm": not show_bars,
        **values,
    }
    try:
        _meet(settings)
        arguments = TrainingArguments(output_dir=str(output_dir), seed=seed, **settings)
        load_whole_models()
        _try_out(arguments)
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        reason = str(error).strip().rstrip(".")
        raise RecipeError(
            f"Expected settings that the Trainer can use under {where!r}, got: {reason}. Correct them in the recipe."
        ) from error
    return arguments


def _hardware_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """What suits this machine, without what a recipe's own choice of device or precision rules out."""
    if values.get("use_cpu"):
        return {"dataloader_pin_memory": False}
    settings = hardware_settings()
    if _is_launched() and not torch.accelerator.is_available():
        settings["use_cpu"] = True  # unless told, Accelerate takes such processes for so many launches of one
    if values.get("fp16"):
        settings.pop("bf16", None)
    return settings


def _meet(settings: Mapping[str, Any]) -> None:
    """Brings the processes of a launch on CPUs together: `TrainingArguments` does so without `ddp_timeout` there."""
    if settings.get("use_cpu") and _is_launched() and not distributed.is_initialized():
        PartialState(cpu=True, timeout=timedelta(seconds=settings["ddp_timeout"]))


def _is_launched() -> bool:
    """Whether a launcher started this process, among others."""
    return int(os.environ.get("LOCAL_RANK", -1)) >= 0


def _try_out(arguments: TrainingArguments) -> None:
    """Makes a Trainer of nothing, which finds what else can't be had: a tracker's package, a batch of no rows."""
    if is_sharded(arguments):  # they need a whole model
        return
    with tempfile.TemporaryDirectory() as nowhere:
        settings = copy.copy(arguments)
        settings.output_dir, settings.push_to_hub = nowhere, False
        rows: Any = [{"input_ids": [0]}]
        trainer = new_trainer(Trainer, model=nn.Linear(1, 1), args=settings, train_dataset=rows, eval_dataset=rows)
        trainer.get_train_dataloader()
        if not settings.optim_target_modules:  # these are names of modules that a layer alone doesn't have
            trainer.create_optimizer_and_scheduler(num_training_steps=1)


def new_trainer(kind: type[AnyTrainer], **parts: Any) -> AnyTrainer:
    """A Trainer that may have another precision than the one before it.

    Accelerate keeps one state for the process, which refuses a second precision: a teacher in float32 before a student
    in bfloat16. A Trainer that is done doesn't need it any more.

    Args:
        kind: the class.
        **parts: its arguments.

    Returns:
        The Trainer.
    """
    AcceleratorState._reset_state()
    return kind(**parts)


def prediction_arguments(
    values: Mapping[str, Any], where: str, output_dir: Path, show_bars: bool
) -> TrainingArguments:
    """The arguments of predictions: of the recipe's section, what concerns device, precision and batches.

    Args:
        values: the recipe's section.
        where: the section's name, for messages.
        output_dir: a folder that is there; nothing is written to it.
        show_bars: whether progress bars are drawn.

    Returns:
        The arguments.

    Raises:
        RecipeError: `TrainingArguments` refuses a value.
    """
    chosen = {name: value for name, value in values.items() if name.startswith(_OF_PREDICTION)}
    with whole_models():
        return training_arguments({**chosen, "eval_strategy": "no"}, where, output_dir, 0, show_bars)


def best_epoch() -> dict[str, Any]:
    """Arguments that keep the epoch with the best score on the main evaluation split."""
    return {
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "score",
        "save_total_limit": 1,
        "save_only_model": not is_sharded(),  # Trainer can't find the best epoch again in shards without the rest
    }


def each_epoch(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that keep the last epoch, to go on from, where a recipe says nothing of checkpoints.

    Args:
        values: the recipe's section.

    Returns:
        The arguments; none if the section has its own `save_strategy`.
    """
    return {} if "save_strategy" in values else {"save_strategy": "epoch", "save_total_limit": 1}


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
    terms: Mapping[str, Term] | None = None,
    attn_implementation: str | None = None,
    continuation: Continuation | None = None,
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
        terms: deeper terms by name; for a teacher that is asked online.
        attn_implementation: of the model and the teacher while it is trained; None for theirs.
        continuation: where to go on from; with it, SIGINT and SIGTERM let it save and stop.

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
            teacher=teacher,
            temperature=temperature,
            alpha=alpha,
            terms=terms,
            first_position_only=True,  # for all models: without terms, student and control draw the same dropout
        )
        if arguments.disable_tqdm:
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(ProgressLines(what))
        logger.info("%s: training on %d rows, %s parameters", what, len(train_rows), f"{model.num_parameters():,}")
        start = time.perf_counter()
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


def check_attention(implementation: str | None, arguments: TrainingArguments, where: str) -> None:
    """Refuses FlashAttention where it can't be computed.

    Args:
        implementation: of the recipe.
        arguments: of the training.
        where: the section's name, for messages.

    Raises:
        RecipeError: no package, or a training in float32.
    """
    if implementation != "flash_attention_2":
        return
    if not is_flash_attn_2_available():
        raise RecipeError(
            "Expected the package flash-attn and a GPU for attn_implementation: flash_attention_2, got none. Install "
            "it, or leave attn_implementation out."
        )
    if not (arguments.bf16 or arguments.fp16):
        raise RecipeError(
            f"Expected bf16 or fp16 under {where!r} for attn_implementation: flash_attention_2, got float32. Set one."
        )


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


def run_training(trainer: ResumableTrainer, what: str, continuation: Continuation | None) -> None:
    """Trains; with a continuation, from its checkpoint on, and until a signal says to stop.

    Args:
        trainer: that is ready.
        what: is trained, for progress.
        continuation: None for a training that starts anew and ends as Python does on signals.

    Raises:
        StoppedError: a signal told it to stop; all is saved.
    """
    if continuation is None:
        trainer.train()
        return
    trainer.identity = continuation.identity
    checkpoint = continuation.checkpoint
    if checkpoint is not None:
        logger.info("%s: going on from %s", what, checkpoint)
    with stopping_on_signals() as is_stop_wanted:
        trainer.is_stop_wanted = is_stop_wanted
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
    with storage_errors(folder):
        if is_main:
            shutil.rmtree(written, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        trainer.save_model(str(written))
        trainer.accelerator.wait_for_everyone()
        if is_main:
            (written / "training_args.bin").unlink(missing_ok=True)
            for path in (*written.iterdir(), written):
                sync(path)
        if continuation is not None:
            continuation.on_written(written, trainer.state.log_history, seconds)
        if is_main:
            written.rename(folder)
            written.parent.rmdir()
            sync(folder.parent)
    trainer.accelerator.wait_for_everyone()
