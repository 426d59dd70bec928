"""How the rows of a step are shared by the ranks: each row once, none repeated.

`accelerate` fills the last, partial batch of an epoch with rows from the beginning, so that every rank gets a full
one; those rows then count twice, and the gradient depends on the number of processes. Here the rows of a step are
the same whatever the number of processes, and the ranks share them evenly. A rank that is left without a row still
takes part in the step (its peers wait for its gradients) with a filler that weighs nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import BatchSampler, Dataset, Sampler

from distilbert_kd.losses.logits import IGNORE_INDEX


__all__ = ["FILLER", "FillerCollator", "RankBatchSampler"]

#: Key that marks a batch which stands in for no row at all.
FILLER = "is_filler"


class RankBatchSampler(BatchSampler):
    """This rank's part of each batch of a batch sampler.

    Of a batch of n rows, rank r of W gets rows n r // W to n (r + 1) // W: the same number for each rank when W
    divides n, at most one row more or less when it doesn't, and none (an empty list) for some ranks when n < W.
    """

    def __init__(self, batch_sampler: BatchSampler, rank: int, num_ranks: int) -> None:
        """Shares the batches of `batch_sampler`, which hold the rows of all `num_ranks` ranks."""
        self.batch_sampler = batch_sampler
        self.sampler: Sampler | Iterable[int] = batch_sampler.sampler  # accelerate seeds and swaps it here
        self.rank = rank
        self.num_ranks = num_ranks
        self.batch_size = batch_sampler.batch_size // num_ranks
        self.drop_last = batch_sampler.drop_last

    def __len__(self) -> int:
        """The number of batches, the same on every rank."""
        return len(self.batch_sampler)

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on to a batch sampler that draws anew in each; other samplers are reached by accelerate."""
        if hasattr(self.batch_sampler, "set_epoch"):
            self.batch_sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        """The rows of this rank, batch after batch."""
        for batch in self.batch_sampler:
            num_rows = len(batch)
            yield batch[num_rows * self.rank // self.num_ranks : num_rows * (self.rank + 1) // self.num_ranks]


class FillerCollator:
    """Collates as the collator that it wraps; of no rows at all it makes one without a label, marked as a filler."""

    def __init__(self, collator: Callable[[list], Mapping[str, Any]], dataset: Dataset | Sequence) -> None:
        """Takes the filler's shape from the first row of `dataset`."""
        self.collator = collator
        self.dataset = dataset

    def __call__(self, features: list) -> Mapping[str, Any]:
        """A batch of the features, or a filler."""
        if features:
            return self.collator(features)
        batch = dict(self.collator([self.dataset[0]]))
        if "labels" in batch:
            batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
        return batch | {FILLER: torch.tensor(True)}
