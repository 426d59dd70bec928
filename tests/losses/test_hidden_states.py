"""The terms of hidden states against closed forms in float64."""

import numpy as np
import pytest
import torch

from distilbert_kd.losses.hidden_states import first_position, hidden_cosine, hidden_mse


FORMULAS = [hidden_cosine, hidden_mse, first_position]
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])


def states(seed):
    return torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def closed_forms(student, teacher):
    """One position, written out in numpy."""
    s, t = student.numpy(), teacher.numpy()
    cosine = s @ t / np.sqrt((s @ s) * (t @ t))
    return {hidden_cosine: 1 - cosine, hidden_mse: ((s - t) ** 2).sum() / len(s), first_position: 2 - 2 * cosine}


@pytest.mark.parametrize("formula", FORMULAS)
def test_equals_the_closed_form_where_there_is_a_token(formula):
    """Prevents a term that is scaled by width, rows or padding, and padding that counts."""
    student, teacher = states(0), states(1)
    found = formula(student, teacher, MASK)
    assert found.shape == (3, 1 if formula is first_position else 4)
    for row in range(3):
        for position in range(found.shape[1]):
            expected = closed_forms(student[row, position], teacher[row, position])[formula] * int(MASK[row, position])
            assert found[row, position].item() == pytest.approx(float(expected), abs=1e-14)


@pytest.mark.parametrize("formula", FORMULAS)
def test_padding_gives_neither_a_value_nor_a_gradient(formula):
    """Prevents NaN in padding, which sdpa leaves behind for rows without a token, from reaching the loss."""
    student, teacher = states(0), states(1)
    student[MASK == 0] = float("nan")
    student.requires_grad_()
    values = formula(student, teacher, MASK)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.equal(formula(student, teacher, torch.zeros_like(MASK)), torch.zeros_like(values))


@pytest.mark.parametrize("formula", FORMULAS)
def test_is_least_at_the_teacher_and_teaches_the_student_alone(formula):
    """Prevents a sign error, and a gradient that reaches the teacher."""
    teacher = states(1).requires_grad_()
    assert formula(teacher.detach().clone(), teacher, MASK).abs().max() < 1e-12
    student = states(0).requires_grad_()
    formula(student, teacher, MASK).sum().backward()
    assert teacher.grad is None
    moved = student.detach() - 1e-3 * student.grad
    assert formula(moved, teacher, MASK).sum() < formula(student, teacher, MASK).sum()


def test_another_width_is_refused():
    """Prevents a narrower teacher from broadcasting to a plausible number."""
    with pytest.raises(ValueError, match="project a student of another width"):
        hidden_mse(states(0), states(1)[..., :1], MASK)


def test_half_precision_is_computed_in_float32():
    """Prevents a squared error that rounds to nothing under bf16 autocast."""
    student, teacher = states(0).bfloat16(), states(1).bfloat16()
    assert hidden_mse(student, teacher, MASK).dtype == torch.float32
