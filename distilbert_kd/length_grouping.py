"""Batches of rows of similar length, so that little of a batch is padding.

Padding is where the time of a classifier's training goes: sentences differ in length, and a batch is as long as its
longest. Sorting all rows would leave no padding and no randomness; so the rows are shuffled first, and sorted only
within windows of some batches.
"""

from collections.abc import Iterator, Sequence

import datasets
import numpy as np
import pyarrow.compute as pc
from torch.utils.data import BatchSampler, Dataset


__all__ = ["WINDOW", "LengthGroupedBatchSampler", "row_lengths"]

#: Batches that are sorted together.
WINDOW = 16


class LengthGroupedBatchSampler(BatchSampler):
    """Batches of similar length, drawn anew each epoch from a seed.

    Each epoch's order is: a random permutation of the rows; its end, less than a batch, is left for the last step, or
    dropped; within each window of `window` batches, rows sorted by length; batches in random order. It depends on the
    seed and the epoch alone, so every process, and a training that is resumed, draws the same.
    """

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int, drop_last: bool, window: int = WINDOW
    ) -> None:
        """Takes the number of tokens of each row, and the rows of a batch (of all processes together)."""
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.window = window
        self.sampler = range(len(self.lengths))
        self.epoch = 0

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        num_rows = len(self.lengths)
        return num_rows // self.batch_size if self.drop_last else -(-num_rows // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order the next iteration draws."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Row numbers, batch after batch."""
        generator = np.random.default_rng((self.seed, self.epoch))
        rows = generator.permutation(len(self.lengths))
        num_whole = len(rows) // self.batch_size
        rest = rows[num_whole * self.batch_size :].tolist()  # before sorting: the longest rows would be left otherwise
        rows, span = rows[: num_whole * self.batch_size], self.window * self.batch_size
        for start in range(0, len(rows), span):
            part = rows[start : start + span]
            rows[start : start + span] = part[np.argsort(self.lengths[part], kind="stable")]
        for batch in generator.permutation(num_whole):
            yield rows[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()
        if rest and not self.drop_last:
            yield rest


def row_lengths(dataset: Dataset | datasets.Dataset, length_column: str = "length") -> np.ndarray:
    """The number of tokens of each row: (rows,).

    Args:
        dataset: a `datasets.Dataset` is asked for `length_column`, or its `input_ids` are measured without being
            turned into Python lists; of any other data set, and of one with a transform, each row is read.
        length_column: `TrainingArguments.length_column_name`.

    Returns:
        Counts, in the order of the rows.
    """
    if not isinstance(dataset, datasets.Dataset) or dataset.format["type"] == "custom":
        return np.array([len(dataset[i]["input_ids"]) for i in range(len(dataset))])  # type: ignore[arg-type]
    if length_column in dataset.column_names:
        return np.asarray(dataset.with_format("numpy")[length_column][:])
    table = dataset.select_columns(["input_ids"]).with_format("arrow")[:]
    return pc.list_value_length(table.column("input_ids")).to_numpy()
