"""`TrainingArguments` as a training gets them: the recipe's, on top of what suits this machine and this launch."""

import copy
import os
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from torch import distributed, nn
from transformers import Trainer, TrainingArguments
from transformers.utils.import_utils import is_flash_attn_2_available

from distilbert_kd.errors import RecipeError
from distilbert_kd.hardware import hardware_settings
from distilbert_kd.sharding import is_sharded, load_whole_models, whole_models


__all__ = [
    "best_epoch",
    "check_attention",
    "each_epoch",
    "new_trainer",
    "prediction_arguments",
    "training_arguments",
]

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
        RuntimeError: the processes of a launch can't meet.
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
        if isinstance(error, RuntimeError) and _is_launched():
            raise  # another process died, or could not be reached: no fault of the recipe
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
