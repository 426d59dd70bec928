"""The loss terms of the log."""

import pytest
import torch
from accelerate import Accelerator

from distilbert_kd.term_means import TermMeans


@pytest.fixture
def means():
    return TermMeans()


def test_a_mean_is_over_rows_and_not_over_batches(means):
    """Prevents a last, small batch from counting as much as a full one, and rows that don't count from counting."""
    means.add("hard_loss", torch.tensor([1.0, 2.0, 100.0]), torch.tensor([True, True, False]))
    means.add("hard_loss", torch.tensor([6.0]), torch.tensor([True]))
    means.add("soft_loss", torch.tensor([5.0, 7.0]), torch.tensor([True, True]))
    assert means.pop(Accelerator(cpu=True)) == {"hard_loss": 3.0, "soft_loss": 6.0}


def test_each_log_line_starts_anew(means):
    """Prevents a mean since the beginning, which hides what happens now."""
    accelerator = Accelerator(cpu=True)
    assert means.pop(accelerator) == {}
    means.add("hard_loss", torch.tensor([1.0]), torch.tensor([True]))
    assert means.pop(accelerator) == {"hard_loss": 1.0}
    assert means.pop(accelerator) == {}
    means.add("hard_loss", torch.tensor([3.0]), torch.tensor([True]))
    assert means.pop(accelerator) == {"hard_loss": 3.0}


def test_a_term_without_a_row_is_left_out(means):
    """Prevents 0/0 in the log, which looks like divergence, where no row has a label."""
    means.add("hard_loss", torch.tensor([float("nan"), 1.0]), torch.tensor([False, False]))
    means.add("soft_loss", torch.tensor([2.0]), torch.tensor([True]))
    assert means.pop(Accelerator(cpu=True)) == {"soft_loss": 2.0}


def test_small_values_count_beside_a_large_total(means):
    """Prevents float32 sums, which stop growing: 2^24 + 1 is 2^24 there."""
    means.add("hard_loss", torch.tensor([2.0**24]), torch.tensor([True]))
    for _ in range(4):
        means.add("hard_loss", torch.tensor([1.0]), torch.tensor([True]))
    assert means.pop(Accelerator(cpu=True)) == {"hard_loss": (2**24 + 4) / 5}


def test_the_graph_of_the_loss_is_let_go(means):
    """Prevents the activations of every step from being kept until the next log line."""
    logits = torch.ones(2, requires_grad=True)
    means.add("hard_loss", logits * 2, torch.tensor([True, True]))
    assert not means._totals["hard_loss"].requires_grad
