"""The terms over the vocabulary, against the plain computation on all logits at once."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from distilbert_kd.losses.logits import hard_loss, soft_loss
from distilbert_kd.losses.vocabulary import vocabulary_losses


NUM_POSITIONS, NUM_WORDS = 23, 50


class Case:
    """States, decoders and labels, in float64; gradients are those of a weighted sum of the terms."""

    def __init__(self, dtype=torch.float64, num_labelled=5, has_bias=True):
        torch.manual_seed(0)
        self.student_states = torch.randn(NUM_POSITIONS, 8, dtype=dtype, requires_grad=True)
        self.teacher_states = torch.randn(NUM_POSITIONS, 12, dtype=dtype, requires_grad=True)
        self.student = nn.Linear(8, NUM_WORDS, bias=has_bias, dtype=dtype)
        self.teacher = nn.Linear(12, NUM_WORDS, bias=has_bias, dtype=dtype)
        self.labels = torch.full((NUM_POSITIONS,), -100)
        self.labels[torch.randperm(NUM_POSITIONS)[:num_labelled]] = torch.randint(NUM_WORDS, (num_labelled,))
        self.weights = torch.rand(2, NUM_POSITIONS, dtype=dtype)

    def chunked(self, chunk, has_teacher=True):
        return vocabulary_losses(
            self.student_states,
            self.student,
            self.teacher_states if has_teacher else None,
            self.teacher if has_teacher else None,
            self.labels,
            2.0,
            chunk,
        )

    def plain(self):
        logits = self.student(self.student_states)
        return soft_loss(logits, self.teacher(self.teacher_states), 2.0), hard_loss(logits, self.labels)

    def gradients(self, terms):
        leaves = [self.student_states, *self.student.parameters()]
        return torch.autograd.grad((torch.stack(terms) * self.weights).sum(), leaves)


@pytest.mark.parametrize("chunk", [1, 7, NUM_POSITIONS, 1000])
@pytest.mark.parametrize("num_labelled", [0, 5, NUM_POSITIONS])
def test_values_and_gradients_are_those_of_all_logits_at_once(chunk, num_labelled):
    """Prevents a chunk that is lost, counted twice, or whose gradient is not that of its value."""
    case = Case(num_labelled=num_labelled)
    for mine, theirs in zip(case.chunked(chunk), case.plain(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    pairs = zip(case.gradients(case.chunked(chunk)), case.gradients(case.plain()), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_labelled", [0, 5])
def test_without_a_teacher_there_are_the_masked_tokens_alone(num_labelled):
    """Prevents soft targets out of nothing, and a step without a masked token that fails."""
    case = Case(num_labelled=num_labelled, has_bias=False)
    soft, hard = case.chunked(2, has_teacher=False)
    assert soft.tolist() == [0.0] * NUM_POSITIONS
    torch.testing.assert_close(hard, case.plain()[1], rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad(hard.sum(), case.student.weight)
    theirs = torch.autograd.grad(case.plain()[1].sum(), case.student.weight)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_no_gradient_reaches_the_teacher():
    """Prevents a teacher that moves towards the student."""
    case = Case()
    loss = sum(term.sum() for term in case.chunked(7))
    found = torch.autograd.grad(loss, [case.teacher_states, *case.teacher.parameters()], allow_unused=True)
    assert found == (None, None, None)


class LargestLogits(TorchDispatchMode):
    """Remembers the most positions whose numbers over the vocabulary stood in one tensor."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, torch.Tensor) and tensor.dim() == 2 and tensor.shape[1] == NUM_WORDS:
                self.most = max(self.most, tensor.shape[0])
        return output


def test_logits_of_more_than_a_chunk_never_exist():
    """Prevents the memory that the chunks are for from being taken all the same, in the forward or backward pass."""
    case = Case()
    with LargestLogits() as plain:
        case.gradients(case.plain())
    with LargestLogits() as chunked:
        case.gradients(case.chunked(13))  # more than either width, so that no turned decoder is taken for logits
    assert (plain.most, chunked.most) == (NUM_POSITIONS, 13)


def test_sums_over_the_vocabulary_are_taken_in_float32():
    """Prevents sums in half precision, which lose most of it: the logits are rounded, what is made of them is not."""
    case = Case(dtype=torch.bfloat16)
    logits, teacher_logits = case.student(case.student_states).double(), case.teacher(case.teacher_states).double()
    expected = soft_loss(logits, teacher_logits, 2.0), hard_loss(logits, case.labels)
    for mine, theirs in zip(case.chunked(7), expected, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-6)


def test_the_decoders_gradient_is_added_up_in_float32_under_autocast():
    """Prevents an error that grows with the number of chunks: 3 % of the word embeddings' gradient at 256 of them."""
    generator = torch.Generator().manual_seed(0)
    decoder = torch.nn.Linear(16, 40)
    states = torch.randn(2048, 16, generator=generator)
    teacher = torch.randn(2048, 16, generator=generator)
    labels = torch.randint(0, 40, (2048,), generator=generator)

    def gradient(chunk, is_half):
        decoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            soft, hard = vocabulary_losses(states, decoder, teacher, torch.nn.Linear(16, 40), labels, 2.0, chunk)
            (soft + hard).mean().backward()
        return decoder.weight.grad.clone()

    torch.manual_seed(1)
    exact = gradient(2048, is_half=False)
    errors = []
    for chunk in (2048, 8):
        torch.manual_seed(1)
        errors.append(float((gradient(chunk, is_half=True) - exact).norm() / exact.norm()))
    assert errors[1] < 1.5 * errors[0] < 0.02


def test_bad_arguments_are_refused():
    """Prevents an endless loop, and vocabularies that broadcast to a plausible number."""
    case = Case()
    with pytest.raises(ValueError, match="at least one position"):
        case.chunked(0)
    case.teacher = nn.Linear(12, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="same outputs"):
        case.chunked(7)
