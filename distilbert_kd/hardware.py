"""What the machine at hand does best: precision, and how rows get to the device."""

from typing import Any

import torch
from transformers import TrainingArguments


__all__ = ["describe_device", "hardware_settings"]


def hardware_settings() -> dict[str, Any]:
    """`TrainingArguments` for this machine, which a recipe's own win over.

    A GPU with bfloat16 units trains under bf16 autocast, with TF32 for what stays in float32, from pinned memory that
    is copied while the GPU works. A CPU trains in float32: without matrix units for bfloat16, bf16 autocast takes half
    as long again there.

    Returns:
        Names and values as `TrainingArguments` takes them.
    """
    if not torch.cuda.is_available():
        return {"dataloader_pin_memory": False}
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {
        "bf16": has_bf16,
        # AMD's cards report such capabilities, too, and TrainingArguments refuses the setting for them.
        **({"tf32": True} if torch.version.cuda and torch.cuda.get_device_capability() >= (8, 0) else {}),
        "dataloader_pin_memory": True,
        "accelerator_config": {"non_blocking": True},
    }


def describe_device(arguments: TrainingArguments) -> str:
    """One line on where and how a training computes, whoever chose it.

    Args:
        arguments: of the training.

    Returns:
        Device, precision, and the threads of a CPU.
    """
    precision = "bf16 autocast" if arguments.bf16 else "fp16 autocast" if arguments.fp16 else "float32"
    if arguments.device.type != "cuda":
        return f"{arguments.device.type}, {torch.get_num_threads()} threads, {precision}"
    return f"{torch.cuda.get_device_name(arguments.device)}, {precision}{', TF32' if arguments.tf32 else ''}"
