"""Attention terms and relations against loops over rows, heads and positions in float64."""

import math

import pytest
import torch

from distilbert_kd.losses.attention import attention_kl, attention_mse, relation_kl


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
NUM_HEADS = 2


def states(seed, width=8):
    return torch.randn(3, 5, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def queries_and_keys(seed, width=8):
    return states(seed, width), states(seed + 100, width)


def score(query, key, row, head, i, j, num_heads):
    size = query.shape[-1] // num_heads
    part = slice(head * size, (head + 1) * size)
    return float(query[row, i, part] @ key[row, j, part]) / math.sqrt(size)


def looped(student, teacher, num_heads, compare):
    """(B, L) by loops, over unpadded queries and keys only: `compare` gets both rows of scores."""
    found = torch.zeros(3, 5, dtype=torch.float64)
    for row in range(3):
        tokens = [i for i in range(5) if MASK[row, i]]
        for i in tokens:
            values = []
            for head in range(num_heads):
                rows = [
                    torch.tensor([score(*pair, row, head, i, j, num_heads) for j in tokens], dtype=torch.float64)
                    for pair in (student, teacher)
                ]
                values.append(compare(*rows))
            found[row, i] = sum(values) / num_heads
    return found


def mean_square(student, teacher):
    return float(((student - teacher) ** 2).sum() / len(student))


def divergence(student, teacher):
    p, q = teacher.exp() / teacher.exp().sum(), student.exp() / student.exp().sum()
    return float((p * (p / q).log()).sum())


def test_scores_equal_the_loop():
    """Prevents padding that counts, heads that are mixed up and a missing square root."""
    student, teacher = queries_and_keys(0), queries_and_keys(1)
    found = attention_mse(student, teacher, MASK, NUM_HEADS)
    torch.testing.assert_close(found, looped(student, teacher, NUM_HEADS, mean_square), rtol=1e-12, atol=1e-14)


def test_maps_equal_the_loop():
    """Prevents KL with its arguments swapped, and probability that leaks to padding."""
    student, teacher = queries_and_keys(0), queries_and_keys(1)
    found = attention_kl(student, teacher, MASK, NUM_HEADS)
    torch.testing.assert_close(found, looped(student, teacher, NUM_HEADS, divergence), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("num_relation_heads", [1, 2, 4])
def test_relations_equal_the_loop(num_relation_heads):
    """Prevents relation heads that must be the attention heads, and models that must be equally wide."""
    student, teacher = states(0, 8), states(1, 16)
    found = relation_kl(student, teacher, MASK, num_relation_heads)
    expected = looped((student, student), (teacher, teacher), num_relation_heads, divergence)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "term",
    [
        lambda s, t, mask: attention_mse((s, s), (t, t), mask, NUM_HEADS),
        lambda s, t, mask: attention_kl((s, s), (t, t), mask, NUM_HEADS),
        lambda s, t, mask: relation_kl(s, t, mask, NUM_HEADS),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_is_zero_at_the_teacher_and_finite_where_nothing_is_unmasked(term, dtype):
    """Prevents NaN for a row of padding, in the value or in the gradient, and a minimum elsewhere."""
    student, teacher = states(0).to(dtype).requires_grad_(), states(1).to(dtype)
    assert term(teacher, teacher, MASK).abs().max() < 1e-6
    values = term(student, teacher, MASK)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(student.grad).all()
    assert values[MASK == 0].abs().max() == 0
    assert (values[MASK == 1] > 0).all()
    assert student.grad[MASK == 0].abs().max() == 0
