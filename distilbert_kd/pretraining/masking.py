"""Rows of a training, each masked in a way that is its own.

A mask depends on the seed, the epoch and the row, and on nothing else: not on the batch that the row stands in, nor on
the process or the worker that reads it. So 32 rows are masked alike as one batch, as 8 x 4 and on two processes, and a
training that is resumed sees what it would have seen. The epoch reaches the rows, and those in worker processes, too,
within the row's number: `epoch * rows + row`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerBase

from distilbert_kd.length_grouping import LengthGroupedBatchSampler
from distilbert_kd.losses.logits import IGNORE_INDEX


__all__ = ["EpochBatchSampler", "MaskedRows", "PaddingCollator", "ShuffledBatchSampler"]


class ShuffledBatchSampler(BatchSampler):
    """Batches of all rows in random order, drawn anew each epoch from a seed.

    The rows of an optimizer step are the same, however the step is split into batches.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int, drop_last: bool) -> None:
        """Takes the rows of a batch (of all processes together)."""
        self.num_rows = num_rows
        self.sampler = range(num_rows)
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return self.num_rows // self.batch_size if self.drop_last else -(-self.num_rows // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order the next iteration draws."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Row numbers, batch after batch."""
        rows = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_rows)
        for batch in range(len(self)):
            yield rows[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()


class EpochBatchSampler(BatchSampler):
    """The batches of another sampler, with the epoch in each row's number."""

    def __init__(self, batches: ShuffledBatchSampler | LengthGroupedBatchSampler, num_rows: int) -> None:
        """Takes a sampler that draws anew in each epoch."""
        self.batches = batches
        self.num_rows = num_rows
        self.sampler = batches.sampler
        self.batch_size = batches.batch_size
        self.drop_last = batches.drop_last

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose batches the next iteration gives."""
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        """Numbers of rows of the epoch, batch after batch."""
        first = self.batches.epoch * self.num_rows
        for batch in self.batches:
            yield [first + row for row in batch]


class MaskedRows(Dataset):
    """Rows of token ids with `labels`, masked by transformers' own collator.

    Of the tokens that are not special ones a share is chosen; 80 % of them become [MASK], 10 % another token, and 10 %
    stay.
    """

    def __init__(
        self, rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, probability: float | None, seed: int
    ) -> None:
        """Masks rows.

        Args:
            rows: with `input_ids`, special tokens included.
            tokenizer: knows the special tokens and [MASK].
            probability: the share of tokens that is chosen; None: nothing is masked, and no row has labels.
            seed: of the masks.
        """
        self.rows = rows
        self.seed = seed
        self._special = torch.tensor(sorted(tokenizer.all_special_ids))
        self._collator = (
            None
            if probability is None
            else DataCollatorForLanguageModeling(tokenizer, mlm_probability=probability, seed=seed)
        )

    def __len__(self) -> int:
        """The number of rows of an epoch."""
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """The row of an epoch: `input_ids` and, if there is masking, `labels`, -100 where nothing is masked; (L,)."""
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Several rows, read in one go."""
        places = [divmod(number, len(self.rows)) for number in numbers]
        texts = self.rows[[row for _, row in places]]["input_ids"]
        return [self._row(torch.tensor(ids), *place) for ids, place in zip(texts, places, strict=True)]

    def _row(self, ids: Tensor, epoch: int, row: int) -> dict[str, Tensor]:
        if self._collator is None:
            return {"input_ids": ids}
        (entropy,) = np.random.SeedSequence((self.seed, epoch, row)).generate_state(1, np.uint64)
        self._collator.generator = torch.Generator().manual_seed(int(entropy) >> 1)
        inputs, labels = self._collator.torch_mask_tokens(
            ids[None], special_tokens_mask=torch.isin(ids, self._special)[None]
        )
        return {"input_ids": inputs[0], "labels": labels[0]}


class PaddingCollator:
    """Makes a batch of rows: `input_ids` and `attention_mask`, (B, L), and `labels` where the rows have some."""

    def __init__(self, pad_token_id: int, pad_to_multiple_of: int = 1) -> None:
        """Takes what to pad with, and a number that L is to be a multiple of."""
        self.pad_token_id = pad_token_id
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, rows: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
        """The batch."""
        longest = max(len(row["input_ids"]) for row in rows)
        length = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        fillers = {"input_ids": self.pad_token_id, "labels": IGNORE_INDEX}
        batch = {
            name: torch.stack([_padded(row[name], length, filler) for row in rows])
            for name, filler in fillers.items()
            if name in rows[0]
        }
        batch["attention_mask"] = torch.stack([_padded(torch.ones_like(row["input_ids"]), length, 0) for row in rows])
        return batch


def _padded(values: Tensor, length: int, filler: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, length - len(values)), value=filler)
