"""The two terms over the vocabulary, position by position, without ever holding (positions, V) whole.

    L_soft = T^2 * KL(teacher_T || student_T)     at every position that is a token
    L_mlm  = cross-entropy(student, token)        at the positions that were masked, T = 1

Logits of 4,096 positions over 30,522 entries take 0.5 GB in float32, and a plain computation holds several such
tensors of student and teacher until the backward pass is done. So the logits are made here, from what the decoder (the
last layer of a masked language model's head) reads, for some positions at a time; the backward pass makes those of a
chunk once more. That is a product with the decoder more for each model, and no logits are kept.

Shapes: `P` positions, `H` what the decoder reads, `V` the vocabulary. Computed in float32 at least, also under
autocast, in which the product with the decoder has autocast's own precision.
Source: Sanh et al. 2019 (DistilBERT), https://arxiv.org/abs/1910.01108, section 3, for the terms; Liger Kernel's fused
linear cross-entropy, https://github.com/linkedin/Liger-Kernel, has the same idea of chunks, in Triton for GPUs.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distilbert_kd.losses.logits import hard_loss, has_label, soft_loss


__all__ = ["CHUNK", "vocabulary_losses"]

#: Positions whose logits are in memory at a time; 256 over a vocabulary of 30,522 are 31 MB for each model.
CHUNK = 256


def vocabulary_losses(
    student_states: Tensor,
    student_decoder: nn.Linear,
    teacher_states: Tensor | None,
    teacher_decoder: nn.Linear | None,
    labels: Tensor,
    temperature: float,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Soft targets and the masked tokens, for each position.

    Formula: see the module; the values and gradients of `soft_loss` and `hard_loss` on all logits at once. In nats;
    minima at equal distributions (0) and at a certain prediction of the token (0).

    Args:
        student_states: what the student's decoder reads, (P, H).
        student_decoder: (H to V), with or without bias; gradients flow into it.
        teacher_states: what the teacher's decoder reads, (P, H of the teacher); None without soft targets, and then
            no logits are made but those of positions with a label.
        teacher_decoder: (H of the teacher to V); no gradient flows into it.
        labels: (P,), the token that was masked, or -100.
        temperature: T > 0.
        chunk: positions at a time; 0 or less is refused.

    Returns:
        L_soft, (P,), zeros without a teacher; and L_mlm, (P,), 0 where there is no label.

    Raises:
        ValueError: the vocabularies differ, T <= 0, or `chunk` < 1.
    """
    if chunk < 1:
        raise ValueError(f"Expected at least one position at a time, got chunk={chunk}.")
    device = student_states.device.type
    # Autocast would cast the decoder once for all chunks, and add up its gradient in half precision.
    is_cast = torch.is_autocast_enabled(device)
    with torch.autocast(device, torch.get_autocast_dtype(device), enabled=is_cast, cache_enabled=False):
        return _in_chunks(student_states, student_decoder, teacher_states, teacher_decoder, labels, temperature, chunk)


def _in_chunks(
    student_states: Tensor,
    student_decoder: nn.Linear,
    teacher_states: Tensor | None,
    teacher_decoder: nn.Linear | None,
    labels: Tensor,
    temperature: float,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    if teacher_states is None or teacher_decoder is None:
        return student_states.new_zeros(len(labels)), _masked_tokens(student_states, student_decoder, labels, chunk)
    masked = has_label(labels)
    (positions,) = masked.nonzero(as_tuple=True)  # here, since each time a GPU is waited for
    counts = torch.stack([part.sum() for part in masked.split(chunk)]).tolist()
    parts = zip(
        student_states.split(chunk),
        teacher_states.split(chunk),
        labels.split(chunk),
        (positions % chunk).split(counts),
        strict=True,
    )
    both = [
        _again_in_backward(_both, student, student_decoder, teacher, teacher_decoder, some, where, temperature)
        for student, teacher, some, where in parts
    ]
    soft, hard = zip(*both, strict=True)
    return torch.cat(soft), torch.cat(hard)


def _masked_tokens(states: Tensor, decoder: nn.Linear, labels: Tensor, chunk: int) -> Tensor:
    (positions,) = has_label(labels).nonzero(as_tuple=True)
    parts = positions.split(chunk)  # one empty part if there is none
    hard = torch.cat([_again_in_backward(_cross_entropy, states[part], decoder, labels[part]) for part in parts])
    return hard.new_zeros(len(labels)).index_put((positions,), hard)


def _both(
    student_states: Tensor,
    student_decoder: nn.Linear,
    teacher_states: Tensor,
    teacher_decoder: nn.Linear,
    labels: Tensor,
    positions: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    student_logits = _decoded(student_states, student_decoder)
    with torch.no_grad():
        teacher_logits = _decoded(teacher_states, teacher_decoder)
    soft = soft_loss(student_logits, teacher_logits, temperature)
    hard = hard_loss(student_logits[positions], labels[positions])
    return soft, hard.new_zeros(len(labels)).index_put((positions,), hard)


def _cross_entropy(states: Tensor, decoder: nn.Linear, labels: Tensor) -> Tensor:
    return hard_loss(_decoded(states, decoder), labels)


def _decoded(states: Tensor, decoder: nn.Linear) -> Tensor:
    """The decoder's product, whatever its `forward` is at the moment."""
    return F.linear(states, decoder.weight, decoder.bias)


def _again_in_backward(function: Callable[..., Any], *arguments: Any) -> Any:
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
