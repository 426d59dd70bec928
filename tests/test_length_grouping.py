"""Batches of similar length."""

import datasets
import numpy as np
import pytest

from distilbert_kd.length_grouping import LengthGroupedBatchSampler, row_lengths


LENGTHS = np.random.default_rng(0).integers(3, 60, size=1000)


def batches_of(epoch=0, seed=1, batch_size=16, window=8, drop_last=False, lengths=LENGTHS):
    sampler = LengthGroupedBatchSampler(lengths, batch_size, seed, drop_last, window)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


@pytest.mark.parametrize("num_rows", [1, 15, 16, 17, 128, 129, 1000])
@pytest.mark.parametrize("window", [1, 8, 100])
def test_each_row_comes_once_an_epoch(num_rows, window):
    """Prevents rows that are never trained on, or twice."""
    batches = batches_of(lengths=LENGTHS[:num_rows], window=window)
    assert sorted(row for batch in batches for row in batch) == list(range(num_rows))
    assert all(len(batch) == 16 for batch in batches[:-1])


def test_each_epoch_and_seed_draws_anew_and_the_same_again():
    """Prevents batches that are frozen after the first epoch, and a resume in another order."""
    assert batches_of(epoch=0) != batches_of(epoch=1)
    assert batches_of(seed=1) != batches_of(seed=2)
    assert batches_of(epoch=3) == batches_of(epoch=3)
    first, second = ({frozenset(batch) for batch in batches_of(epoch=epoch)} for epoch in (0, 1))
    assert not first & second


def test_little_of_a_batch_is_padding_and_the_order_of_lengths_is_random():
    """Prevents a sampler that sorts nothing, or that trains on all short rows first."""

    def efficiency(batches):
        return LENGTHS.sum() / sum(len(batch) * LENGTHS[batch].max() for batch in batches)

    grouped = batches_of(window=8)
    assert efficiency(grouped) > 0.9 > 0.7 > efficiency(batches_of(window=1))
    means = [LENGTHS[batch].mean() for batch in grouped]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_the_last_partial_batch_is_left_out_on_request():
    """Prevents steps of other sizes where none are wanted."""
    batches = batches_of(drop_last=True)
    assert len(batches) == 62
    assert all(len(batch) == 16 for batch in batches)


def test_the_last_partial_batch_is_drawn_at_random():
    """Prevents the longest rows from being dropped in every epoch, or from being alone in a step and weighing more."""
    lengths = np.arange(1, 101)
    last, seen = [], set()
    for epoch in range(20):
        sampler = LengthGroupedBatchSampler(lengths, 32, seed=0, drop_last=False)
        sampler.set_epoch(epoch)
        last += list(sampler)[-1]
        dropping = LengthGroupedBatchSampler(lengths, 32, seed=0, drop_last=True)
        dropping.set_epoch(epoch)
        seen |= {row for batch in dropping for row in batch}
    assert seen == set(range(100))
    assert len(set(last)) > 40
    assert 35 < np.mean(lengths[last]) < 65


def test_lengths_are_those_of_the_rows_also_after_a_selection():
    """Prevents lengths that are read past a selection or a shuffle."""
    rows = datasets.Dataset.from_dict({"input_ids": [[1] * n for n in (5, 3, 9, 7)]})
    assert row_lengths(rows).tolist() == [5, 3, 9, 7]
    assert row_lengths(rows.select([2, 0])).tolist() == [9, 5]
    assert row_lengths([{"input_ids": [1, 2]}, {"input_ids": [1]}]).tolist() == [2, 1]
    assert row_lengths(rows.add_column("length", [1, 2, 3, 4])).tolist() == [1, 2, 3, 4]
