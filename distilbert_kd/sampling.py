"""How the rows of a step are shared by the ranks: each row once, none repeated.

`accelerate` fills the last, partial batch of an epoch with rows from the beginning, so that every rank gets a full
one; those rows then count twice, and the gradient depends on the number of processes. Here the rows of a step are
the same whatever the number of processes, and the ranks share them evenly. A rank that is left without a row still
takes part in the step (its peers wait for its gradients) with a filler that weighs nothing.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler
from transformers import TrainingArguments
from transformers.trainer_utils import seed_worker

from distilbert_kd.losses.logits import IGNORE_INDEX


__all__ = ["FILLER", "FillerCollator", "RankBatchSampler", "shared_loader"]

#: Batches whose rows are remembered: more than workers fetch ahead.
_RECENT = 256

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
        self.sampler: Sampler | Iterable[int] = batch_sampler.sampler  # accelerate looks here, and swaps both
        self.rank = rank
        self.num_ranks = num_ranks
        self.batch_size = batch_sampler.batch_size // num_ranks
        self.drop_last = batch_sampler.drop_last
        self._recent: deque[tuple[int, list[int]]] = deque(maxlen=_RECENT)

    def __len__(self) -> int:
        """The number of batches, the same on every rank."""
        return len(self.batch_sampler)

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on to a batch sampler that draws anew in each; other samplers are reached by accelerate."""
        if hasattr(self.batch_sampler, "set_epoch"):
            self.batch_sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        """The rows of this rank, batch after batch."""
        self._recent.clear()
        for number, batch in enumerate(self.batch_sampler):
            num_rows = len(batch)
            mine = batch[num_rows * self.rank // self.num_ranks : num_rows * (self.rank + 1) // self.num_ranks]
            self._recent.append((number, mine))
            yield mine

    def rows_of(self, number: int) -> list[int]:
        """This rank's rows of a batch of this epoch, counted from 0; empty if that was long ago, or is yet to come."""
        return next((rows for recent, rows in self._recent if recent == number), [])


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


def shared_loader(
    dataset: Any,
    batches: BatchSampler,
    collator: Callable[[list], Mapping[str, Any]],
    args: TrainingArguments,
    accelerator: Accelerator,
) -> DataLoader:
    """A loader of this process's part of each batch, prepared as accelerate prepares them.

    Args:
        dataset: the rows.
        batches: rows of all processes together.
        collator: makes a batch of rows.
        args: workers and memory.
        accelerator: knows the processes and the device.

    Returns:
        The loader; it gives the same number of batches on every process.
    """
    num_ranks, rank = accelerator.num_processes, accelerator.process_index
    loader = DataLoader(
        dataset,
        batch_sampler=RankBatchSampler(batches, rank, num_ranks),
        collate_fn=FillerCollator(collator, dataset),
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        multiprocessing_context=args.dataloader_multiprocessing_context,
        prefetch_factor=args.dataloader_prefetch_factor,
        in_order=args.dataloader_in_order,
        worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=rank),
    )
    prepared = prepare_data_loader(
        loader,
        accelerator.device,
        num_processes=1,  # the rows are shared already
        process_index=0,
        put_on_device=accelerator.device_placement,
        rng_types=accelerator.rng_types.copy(),
        use_seedable_sampler=accelerator.use_seedable_sampler,
        data_seed=accelerator.dataloader_config.data_seed,
        non_blocking=accelerator.non_blocking,
        use_stateful_dataloader=accelerator.use_stateful_dataloader,
    )
    prepared._is_accelerate_prepared = True
    return accelerator.prepare_data_loader(prepared)
