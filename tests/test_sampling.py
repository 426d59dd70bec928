"""Each row of a step is on one rank, and every rank takes part in every step."""

import pytest
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from distilbert_kd.losses.logits import IGNORE_INDEX
from distilbert_kd.sampling import FILLER, FillerCollator, RankBatchSampler
from tests.training_rows import collator, pair_rows


def ranks_of(num_rows, batch_size, num_ranks, drop_last=False):
    """The batches of every rank."""
    batches = BatchSampler(SequentialSampler(range(num_rows)), batch_size, drop_last)
    return [RankBatchSampler(batches, rank, num_ranks) for rank in range(num_ranks)]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 8, 9])
def test_the_ranks_share_each_batch_evenly(batch_size, num_ranks):
    """Prevents rows that count twice or never, and ranks that wait for a peer without a batch."""
    for num_rows in range(20):
        for drop_last in (False, True):
            samplers = ranks_of(num_rows, batch_size, num_ranks, drop_last)
            parts = [list(sampler) for sampler in samplers]
            expected = list(BatchSampler(range(num_rows), batch_size, drop_last))
            assert [len(sampler) for sampler in samplers] == [len(expected)] * num_ranks
            assert [len(part) for part in parts] == [len(expected)] * num_ranks
            for step, batch in enumerate(expected):
                shares = [part[step] for part in parts]
                # One after another they are the batch of a single process: none repeated, none lost, in order.
                assert [row for share in shares for row in share] == batch
                sizes = [len(share) for share in shares]
                assert max(sizes) - min(sizes) <= 1


def test_shares_worked_out_by_hand():
    """Prevents a property that holds for the wrong reason: 10 rows in batches of 4 on 2 ranks."""
    first, second = ranks_of(10, 4, 2)
    assert list(first) == [[0, 1], [4, 5], [8]]
    assert list(second) == [[2, 3], [6, 7], [9]]
    assert list(ranks_of(1, 4, 2)[0]) == [[]]
    assert (first.batch_size, first.drop_last) == (2, False)


def test_the_epoch_is_passed_on_to_a_sampler_that_draws_anew():
    """Prevents the same batches in every epoch when batches come from a sampler that accelerate does not know."""

    class Counting(BatchSampler):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

    batches = Counting(SequentialSampler(range(4)), 2, False)
    RankBatchSampler(batches, 0, 2).set_epoch(3)
    assert batches.epoch == 3
    ranks_of(4, 2, 2)[0].set_epoch(3)  # one without is left to accelerate


def test_rows_are_collated_as_ever():
    """Prevents a mark or a change on batches that hold rows."""
    rows = pair_rows(4)
    features = [rows[1], rows[2]]
    expected = collator()(features)
    found = FillerCollator(collator(), rows)(features)
    assert FILLER not in found
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("num_labels", [2, 1])
def test_no_rows_make_a_filler_that_has_no_label(num_labels):
    """Prevents a rank without rows from stopping its peers, or from teaching a row a second time."""
    rows = pair_rows(4, num_labels=num_labels)
    filler = FillerCollator(collator(), rows)([])
    assert filler[FILLER].item() is True
    assert filler["input_ids"].tolist() == [rows[0]["input_ids"]]
    assert filler["labels"].tolist() == [IGNORE_INDEX]
    assert filler["labels"].is_floating_point() == (num_labels == 1)


def test_a_filler_of_unlabelled_rows_needs_no_label():
    """Prevents a failure on rows that only a teacher makes useful."""
    filler = FillerCollator(collator(), pair_rows(4).remove_columns("labels"))([])
    assert filler[FILLER].item() is True
    assert "labels" not in filler
