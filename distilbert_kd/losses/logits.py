"""The two classic terms of distillation, row by row, and how they are mixed.

    L = (1 - alpha) * L_hard + alpha * L_soft
    L_hard = cross-entropy(student, label)                       at T = 1
    L_soft = T^2 * KL(teacher_T || student_T),   p_T = softmax(logits / T)

alpha is that of the row: rows that were altered after they got their labels may have one of their own, because their
labels are doubtful.

The soft targets carry more than the winning class: how much the other classes resemble it. A higher T softens them and
tells more of that, a lower one tells less. T^2 keeps the size of the gradient of L_soft independent of T, so that
alpha means the same at every T. With one output (regression) a softmax is constant and its KL is zero whatever the
student does, so both terms are squared errors there: to the label, and to the teacher's output.

Every function returns one value for each row; who sums them knows over how many rows of all ranks and accumulation
steps to take the mean.

Shapes: `B` rows, `C` classes or outputs. Everything is computed in float32 at least, also under autocast.
Source: Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531, section 2, equation 1 (softmax with T) and the
remark on T^2 at its end.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


__all__ = ["IGNORE_INDEX", "at_least_float32", "hard_loss", "has_label", "mix", "soft_loss"]

#: The label of a row that has none, as in `torch.nn.functional.cross_entropy`.
IGNORE_INDEX = -100


def soft_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """How far the student's distribution is from the teacher's, for each row.

    Formula: T^2 * sum_c p_T(c) (log p_T(c) - log q_T(c)) with p the teacher and q the student; for C = 1 the squared
    error (student - teacher)^2, which T does not enter. In nats; 0, its minimum, where the logits of a row are equal
    up to a constant (C = 1: equal).

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C); no gradient flows into them.
        temperature: T > 0.

    Returns:
        (B,), float32 or wider.

    Raises:
        ValueError: the shapes differ (a narrower teacher would broadcast to a plausible number), or T <= 0.

    Source: Hinton et al. 2015, section 2; for one output, TinyBERT (Jiao et al. 2020) takes the same squared error.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"Expected teacher logits of the student's shape {tuple(student_logits.shape)}, got "
            f"{tuple(teacher_logits.shape)}. Teacher and student must have the same outputs, for the same rows."
        )
    if not temperature > 0:
        raise ValueError(f"Expected a temperature above 0, got {temperature}.")
    student, teacher = at_least_float32(student_logits), at_least_float32(teacher_logits.detach())
    if student.shape[-1] == 1:
        return (student - teacher).square().mean(dim=-1)
    student_log_probabilities = F.log_softmax(student / temperature, dim=-1)
    teacher_log_probabilities = F.log_softmax(teacher / temperature, dim=-1)
    divergence = F.kl_div(student_log_probabilities, teacher_log_probabilities, reduction="none", log_target=True)
    return divergence.sum(dim=-1) * temperature**2


def hard_loss(student_logits: Tensor, labels: Tensor) -> Tensor:
    """How far the student is from the labels, for each row; always at T = 1.

    Formula: -log softmax(logits)[label]; for C = 1 the squared error (logit - label)^2. In nats (classes).

    Args:
        student_logits: (B, C).
        labels: (B,); class numbers, or numbers where C = 1. Rows labelled -100 give 0.

    Returns:
        (B,), float32 or wider.

    Raises:
        IndexError: a class number that is neither in [0, C) nor -100 (on a CPU; a GPU stops with a device assertion).
    """
    student = at_least_float32(student_logits)
    if student.shape[-1] == 1:
        errors = (student.squeeze(-1) - labels.to(student.dtype)).square()
        return torch.where(has_label(labels), errors, torch.zeros_like(errors))
    return F.cross_entropy(student, labels.long(), reduction="none", ignore_index=IGNORE_INDEX)


def has_label(labels: Tensor) -> Tensor:
    """Which rows have a label: (B,), bool."""
    return labels != IGNORE_INDEX


def mix(hard: Tensor, soft: Tensor, labelled: Tensor, alpha: float | Tensor) -> Tensor:
    """The objective of each row: (1 - alpha) * hard + alpha * soft, and soft alone where there is no label.

    Args:
        hard: (B,), from `hard_loss`.
        soft: (B,), from `soft_loss`.
        labelled: (B,), bool.
        alpha: weight of the soft target in [0, 1]; one number, or (B,).

    Returns:
        (B,).
    """
    return torch.where(labelled, (1 - alpha) * hard + alpha * soft, soft)


def at_least_float32(values: Tensor) -> Tensor:
    """The values, in float32 if they were in less."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
