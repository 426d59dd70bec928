"""Where a model's weights are while it is trained: whole on each process, or in shards over them (FSDP, DeepSpeed).

Only a training shards. Everything else of a run (predictions, scores, times, the teacher's answers) has whole models
on each process: it is done with plain models, and DeepSpeed's ZeRO 1 and 2 can't predict.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import patch_environment
from torch import nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from distilbert_kd.student.build import SUPPORTED_ARCHITECTURES, encoder_layers


__all__ = [
    "is_sharded",
    "load_whole_models",
    "shard_by_layer",
    "sharding",
    "spread_teacher",
    "take_up",
    "whole_models",
]

#: How `accelerate launch` tells its processes to shard. Accelerate sets them, too, and leaves them set.
_SWITCHES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")


def is_sharded(arguments: TrainingArguments | None = None) -> bool:
    """Whether a training shards its model.

    Args:
        arguments: of the training; None to ask the launcher alone.

    Returns:
        True under FSDP and DeepSpeed, whether the launcher or the arguments say so.
    """
    if arguments is not None and (arguments.fsdp or arguments.deepspeed):
        return True
    return any(os.environ.get(switch, "false").lower() in ("true", "1") for switch in _SWITCHES)


@contextmanager
def whole_models() -> Iterator[None]:
    """Within it, Trainers and their arguments don't shard, whatever the launcher says."""
    with patch_environment(**dict.fromkeys(_SWITCHES, "false")):
        yield


def load_whole_models() -> None:
    """Undoes that arguments with ZeRO 3 make every later model load in shards."""
    unset_hf_deepspeed_config()


@contextmanager
def sharding(arguments: TrainingArguments) -> Iterator[None]:
    """Within it, one training may shard; afterwards Accelerate and transformers are as before it.

    Accelerate keeps both the switch in the environment and the kind of launch for the life of the process, and
    transformers loads every model in shards for as long as arguments with ZeRO 3 are there.

    Args:
        arguments: of the training.
    """
    if not is_sharded(arguments):
        yield
        return
    switches = {name: os.environ.get(name, "false") for name in _SWITCHES}
    kind = PartialState().distributed_type
    plugin = arguments.deepspeed_plugin
    try:
        if plugin is not None:
            plugin.set_deepspeed_weakref()
        with patch_environment(**switches):
            yield
    finally:
        load_whole_models()
        AcceleratorState._reset_state()
        PartialState._shared_state["distributed_type"] = kind


def shard_by_layer(accelerator: Accelerator, model: PreTrainedModel) -> None:
    """Makes each encoder layer a unit of FSDP, unless units were named.

    Accelerate's own choice for BERT and RoBERTa, layers and embeddings, can't be trained: it shards the embeddings
    once more by themselves ("Invariant encountered: value was None", accelerate 1.15).

    Args:
        accelerator: of a Trainer; nothing is done unless it has FSDP.
        model: to be trained.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    is_known = getattr(getattr(model, "config", None), "model_type", None) in SUPPORTED_ARCHITECTURES
    if plugin is not None and plugin.transformer_cls_names_to_wrap is None and is_known:
        plugin.transformer_cls_names_to_wrap = [type(encoder_layers(model)[0]).__name__]


def spread_teacher(accelerator: Accelerator, arguments: TrainingArguments, teacher: PreTrainedModel) -> nn.Module:
    """Brings a frozen teacher to where it is asked.

    It is whole on each device; under ZeRO 3 its weights are in shards like the student's, and each layer is gathered
    when it is computed. It is no model of the accelerator: nothing of it is trained, saved or unwrapped.

    Args:
        accelerator: of the student's Trainer.
        arguments: of the student's training.
        teacher: frozen, in eval mode; whole, or loaded in shards.

    Returns:
        What to call: the teacher itself, or DeepSpeed's engine around it.

    Source: what TRL's `prepare_deepspeed` (trl/models/utils.py) is for.
    """
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is None or plugin.zero_stage != 3:
        return teacher.to(accelerator.device)
    import deepspeed

    width = teacher.config.hidden_size
    settings = {
        "train_micro_batch_size_per_gpu": arguments.per_device_train_batch_size,
        "bf16": {"enabled": arguments.bf16},
        "fp16": {"enabled": arguments.fp16},
        "zero_optimization": {
            "stage": 3,
            "reduce_bucket_size": width * width,
            "stage3_prefetch_bucket_size": width * width,
            "stage3_param_persistence_threshold": 10 * width,  # biases and norms stay whole
        },
    }
    engine, *_ = deepspeed.initialize(model=teacher, config=settings)
    engine.eval()
    return engine


def take_up(model: PreTrainedModel, folder: str) -> None:
    """Gives a whole model the weights of a model folder, when it was a copy of it that was trained in shards.

    Args:
        model: of the same architecture.
        folder: as `save_pretrained` writes it.
    """
    model.load_state_dict(type(model).from_pretrained(folder, use_safetensors=True).state_dict())
