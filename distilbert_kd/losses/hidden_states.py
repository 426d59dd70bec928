"""Terms that compare hidden states, position by position.

Every function returns one value for each position, and 0 where the mask is 0: padding never counts, and a batch
without any position gives 0. Who adds them up decides over what to take the mean.

Shapes: `B` rows, `L` tokens, `H` the teacher's width; a student of another width is projected before (see
`distilbert_kd.deep_terms`). Computed in float32 at least.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distilbert_kd.losses.logits import at_least_float32


__all__ = ["first_position", "hidden_cosine", "hidden_mse", "masked"]


def hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """How far the directions of the hidden states are apart.

    Formula: 1 - cos(h_S, h_T). From 0 (the minimum: same direction) to 2; no unit.

    Args:
        student: (B, L, H).
        teacher: (B, L, H); no gradient flows into it.
        mask: (B, L), 1 where there is a token.

    Returns:
        (B, L).

    Raises:
        ValueError: the shapes differ.

    Source: Sanh et al. 2019 (DistilBERT), https://arxiv.org/abs/1910.01108, section 2, L_cos.
    """
    student, teacher = _checked(student, teacher)
    return masked(1 - F.cosine_similarity(student, teacher, dim=-1), mask)


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The mean squared error of the hidden states.

    Formula: 1/H * sum_h (h_S - h_T)^2. Minimum 0, where they are equal; in squared units of the hidden states.

    Args:
        student: (B, L, H).
        teacher: (B, L, H); no gradient flows into it.
        mask: (B, L), 1 where there is a token.

    Returns:
        (B, L).

    Raises:
        ValueError: the shapes differ.

    Source: Jiao et al. 2020 (TinyBERT), https://arxiv.org/abs/1909.10351, equation 8. There one matrix projects all
        layers of a narrower student, and the terms of the layers are added up; here each layer has its own, and the
        mean is taken.
    """
    student, teacher = _checked(student, teacher)
    return masked((student - teacher).square().mean(dim=-1), mask)


def first_position(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The squared distance of the normalised hidden states of the first position, which the classifier reads.

    Formula: || h_S / |h_S| - h_T / |h_T| ||^2 = 2 - 2 cos(h_S, h_T), at position 0. From 0 (the minimum) to 4.

    Args:
        student: (B, L, H).
        teacher: (B, L, H); no gradient flows into it.
        mask: (B, L), 1 where there is a token.

    Returns:
        (B, 1).

    Raises:
        ValueError: the shapes differ.

    Source: Sun et al. 2019 (PKD), https://arxiv.org/abs/1908.09355, equation 7.
    """
    student, teacher = _checked(student[:, :1], teacher[:, :1])
    distance = F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)
    return masked(distance.square().sum(dim=-1), mask[:, :1])


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """The values where the mask is not 0, and 0 elsewhere, whatever stands there: NaN, too."""
    return torch.where(mask.bool(), values, torch.zeros_like(values))


def _checked(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.shape != teacher.shape:
        raise ValueError(
            f"Expected the teacher's hidden states in the student's shape {tuple(student.shape)}, got "
            f"{tuple(teacher.shape)}. Both models must read the same tokens; project a student of another width first."
        )
    return at_least_float32(student), at_least_float32(teacher.detach())
