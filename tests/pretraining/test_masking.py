"""Masks: how many, of what, and that they belong to a row and an epoch."""

import datasets
import numpy as np
import pytest
import torch

from distilbert_kd.length_grouping import LengthGroupedBatchSampler
from distilbert_kd.pretraining.masking import EpochBatchSampler, MaskedRows, PaddingCollator, ShuffledBatchSampler
from tests.tiny import tiny_tokenizer


TOKENIZER = tiny_tokenizer()
SPECIAL = set(TOKENIZER.all_special_ids)


def text_rows(num_rows=40, length=20, seed=0):
    """Rows of ordinary tokens between CLS and SEP, of different lengths."""
    generator = np.random.default_rng(seed)
    ids = [
        [
            TOKENIZER.cls_token_id,
            *generator.integers(5, len(TOKENIZER), length - i % 7).tolist(),
            TOKENIZER.sep_token_id,
        ]
        for i in range(num_rows)
    ]
    return datasets.Dataset.from_dict({"input_ids": ids})


def test_shares_are_those_of_bert():
    """Prevents masks of special tokens, or shares other than 15 %, and 80, 10 and 10 % of these."""
    rows = text_rows(400, 60)
    masked = MaskedRows(rows, TOKENIZER, 0.15, seed=1)
    num_tokens, chosen, outcomes = 0, 0, {"mask": 0, "same": 0, "other": 0}
    for i, original in enumerate(rows["input_ids"]):
        row = masked[i]
        assert row["labels"][[0, -1]].tolist() == [-100, -100]
        for before, after, label in zip(original, row["input_ids"].tolist(), row["labels"].tolist(), strict=True):
            num_tokens += before not in SPECIAL
            if label == -100:
                assert after == before
                continue
            assert label == before
            chosen += 1
            kind = "mask" if after == TOKENIZER.mask_token_id else "same" if after == before else "other"
            outcomes[kind] += 1
    assert chosen / num_tokens == pytest.approx(0.15, abs=0.01)
    assert outcomes["mask"] / chosen == pytest.approx(0.8, abs=0.03)
    assert outcomes["other"] / chosen == pytest.approx(0.1, abs=0.03)


def test_a_mask_belongs_to_seed_epoch_and_row():
    """Prevents masks that depend on what was read before, so that a resumed run sees others; and masks for good."""
    masked = MaskedRows(text_rows(), TOKENIZER, 0.15, seed=1)
    torch.manual_seed(5)
    alone = masked[33]
    together = masked.__getitems__([7, 33, 2])[1]
    assert torch.equal(alone["input_ids"], together["input_ids"])
    assert torch.equal(alone["labels"], together["labels"])
    next_epoch = masked[33 + len(masked)]
    other_seed = MaskedRows(text_rows(), TOKENIZER, 0.15, seed=2)[33]
    assert not torch.equal(alone["labels"], next_epoch["labels"])
    assert not torch.equal(alone["labels"], other_seed["labels"])
    originals = [torch.where(row["labels"] == -100, row["input_ids"], row["labels"]) for row in (alone, next_epoch)]
    assert torch.equal(*originals)


def test_without_masking_rows_are_as_they_are():
    """Prevents [MASK] in the text of a teacher that never saw one."""
    rows = text_rows(5)
    assert MaskedRows(rows, TOKENIZER, None, seed=1)[3].keys() == {"input_ids"}
    assert MaskedRows(rows, TOKENIZER, None, seed=1)[3]["input_ids"].tolist() == rows[3]["input_ids"]


def test_batches_are_padded():
    """Prevents padding that is read as text, or that has a label."""
    rows = [{"input_ids": torch.tensor([2, 9, 3]), "labels": torch.tensor([-100, 8, -100])}, {}]
    rows[1] = {name: values[:2] for name, values in rows[0].items()}
    batch = PaddingCollator(0, pad_to_multiple_of=4)(rows)
    assert batch["input_ids"].tolist() == [[2, 9, 3, 0], [2, 9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 8, -100, -100], [-100, 8, -100, -100]]


@pytest.mark.parametrize("is_grouped", [True, False])
def test_an_epoch_holds_each_row_once_and_its_own_number(is_grouped):
    """Prevents rows that are lost, an order for good, and epochs that reach no mask."""
    lengths = [len(ids) for ids in text_rows(23)["input_ids"]]
    batches = LengthGroupedBatchSampler(lengths, 4, 7, False) if is_grouped else ShuffledBatchSampler(23, 4, 7, False)
    sampler = EpochBatchSampler(batches, 23)
    orders = []
    for epoch in (0, 1, 1):
        sampler.set_epoch(epoch)
        numbers = [number for batch in sampler for number in batch]
        assert sorted(numbers) == list(range(23 * epoch, 23 * (epoch + 1)))
        assert len(list(sampler)) == len(sampler) == 6
        orders.append([number % 23 for number in numbers])
    assert orders[0] != orders[1] == orders[2]


def test_the_rows_of_a_step_do_not_depend_on_how_it_is_split():
    """Prevents 8 x 4 from being another experiment than 32."""
    orders = [[row for batch in ShuffledBatchSampler(100, size, 7, False) for row in batch] for size in (32, 8)]
    assert orders[0] == orders[1]


def test_the_last_batch_can_be_dropped():
    """Prevents an option that is taken and ignored."""
    sampler = ShuffledBatchSampler(23, 4, 7, True)
    assert [len(batch) for batch in sampler] == [4] * 5
