"""Terms that compare where positions attend, and how queries, keys and values relate among themselves.

Every function returns one value for each query position, and 0 where the mask is 0. Keys that are padding are left out
of every mean, and out of every softmax. Nothing is asked of the models but the outputs of their query, key and value
projections, so any attention implementation will do: with `output_attentions=True` the default one (sdpa) gives an
empty tuple, and a term that sums over it vanishes without a word.

Shapes: `B` rows, `L` tokens, `H` width of a model (student's and teacher's may differ), `A` heads. Computed in float32
at least. Dropout on attention maps is not part of the terms.
"""

import torch
from torch import Tensor

from distilbert_kd.losses.hidden_states import masked
from distilbert_kd.losses.logits import at_least_float32


__all__ = ["attention_kl", "attention_mse", "relation_kl"]

QueryAndKey = tuple[Tensor, Tensor]


def attention_mse(student: QueryAndKey, teacher: QueryAndKey, mask: Tensor, num_heads: int) -> Tensor:
    """The mean squared error of the attention scores, before the softmax.

    Formula: 1/(A K) * sum_a sum_k (s_S - s_T)^2, s = q k^T / sqrt(H / A), over the K keys that are tokens. Minimum 0,
    where the scores are equal.

    Args:
        student: queries and keys, each (B, L, H).
        teacher: queries and keys, each (B, L, H of the teacher); no gradient flows into them.
        mask: (B, L), 1 where there is a token.
        num_heads: A, of both models.

    Returns:
        (B, L).

    Source: Jiao et al. 2020 (TinyBERT), https://arxiv.org/abs/1909.10351, equation 7; its code sets the scores of
        padding to zero and counts them, here they are left out.
    """
    errors = (_scores(*student, num_heads) - _scores(*_detached(teacher), num_heads)).square().mean(dim=1)
    errors = masked(errors, mask[:, None, :].expand_as(errors)).sum(dim=-1)
    return masked(errors / mask.sum(dim=-1, keepdim=True).clamp(min=1), mask)


def attention_kl(student: QueryAndKey, teacher: QueryAndKey, mask: Tensor, num_heads: int) -> Tensor:
    """How far the student's attention maps are from the teacher's.

    Formula: 1/A * sum_a KL(softmax(s_T) || softmax(s_S)), s = q k^T / sqrt(H / A). In nats; minimum 0, where the maps
    are equal.

    Args:
        student: queries and keys, each (B, L, H).
        teacher: queries and keys, each (B, L, H of the teacher); no gradient flows into them.
        mask: (B, L), 1 where there is a token.
        num_heads: A, of both models.

    Returns:
        (B, L).

    Source: Wang et al. 2020 (MiniLM), https://arxiv.org/abs/2002.10957, equation 6.
    """
    return _divergence(_scores(*student, num_heads), _scores(*_detached(teacher), num_heads), mask)


def relation_kl(student: Tensor, teacher: Tensor, mask: Tensor, num_relation_heads: int) -> Tensor:
    """How far the student's self-attention relations are from the teacher's: of queries, keys or values.

    Formula: 1/R * sum_r KL(softmax(x_T x_T^T / sqrt(d_T)) || softmax(x_S x_S^T / sqrt(d_S))), with x the vectors of
    one of R relation heads, and d = H / R their width. In nats; minimum 0, where the relations are equal. R need not
    be the number of attention heads, and the widths of the models may differ.

    Args:
        student: queries, keys or values, (B, L, H).
        teacher: the same of the teacher, (B, L, H of the teacher); no gradient flows into it.
        mask: (B, L), 1 where there is a token.
        num_relation_heads: R; both widths are multiples of it.

    Returns:
        (B, L).

    Source: Wang et al. 2021 (MiniLMv2), https://arxiv.org/abs/2012.15828, equations 4 and 5; with values it is the
        value relation of MiniLM, equation 8.
    """
    teacher = teacher.detach()
    return _divergence(
        _scores(student, student, num_relation_heads), _scores(teacher, teacher, num_relation_heads), mask
    )


def _detached(tensors: QueryAndKey) -> QueryAndKey:
    return tensors[0].detach(), tensors[1].detach()


def _scores(query: Tensor, key: Tensor, num_heads: int) -> Tensor:
    """Scaled dot products by heads: (B, A, L, L)."""
    query, key = (at_least_float32(states).unflatten(-1, (num_heads, -1)).transpose(1, 2) for states in (query, key))
    return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


def _divergence(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL over the keys that are tokens, as a mean over heads: (B, A, L, L) scores to (B, L)."""
    is_padding = ~mask.bool()[:, None, None, :]
    student, teacher = (
        # The lowest finite number and not -inf: its probability is 0 all the same, and 0 * (-inf + inf) would be NaN.
        scores.masked_fill(is_padding, torch.finfo(scores.dtype).min).log_softmax(dim=-1)
        for scores in (student, teacher)
    )
    divergence = (teacher.exp() * (teacher - student)).masked_fill(is_padding, 0.0)
    return masked(divergence.sum(dim=-1).mean(dim=1), mask)
