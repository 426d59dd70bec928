"""Milliseconds per example of several models, measured side by side."""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel


__all__ = ["Latency", "measure_latency"]

_MIN_ROUNDS = 3


@dataclass(frozen=True)
class Latency:
    """What was measured, and on what.

    Attributes:
        ms_per_example: Model name to batch size to median milliseconds per example.
        quartiles_ms: Model name to batch size to the first and third quartile of the same.
        num_rounds: Batch size to the number of timed rounds.
        num_threads: Threads of torch on the CPU.
        device: The device of the models, as torch names it ("cpu", "cuda:0").
    """

    ms_per_example: dict[str, dict[int, float]]
    quartiles_ms: dict[str, dict[int, tuple[float, float]]]
    num_rounds: dict[int, int]
    num_threads: int
    device: str

    def of(self, name: str) -> dict[str, dict[str, Any]]:
        """One model's milliseconds per example as they stand in `results.json`, keyed by batch size as text."""
        return {
            "latency_ms": {str(size): ms for size, ms in self.ms_per_example[name].items()},
            "latency_quartiles_ms": {str(size): list(pair) for size, pair in self.quartiles_ms[name].items()},
        }


def measure_latency(
    models: Mapping[str, PreTrainedModel],
    dataset: Any,
    collator: Callable[[list[Any]], Mapping[str, Any]],
    batch_sizes: Sequence[int] = (1, 32),
    *,
    max_rounds: int = 50,
    max_seconds: float = 10.0,
) -> Latency:
    """Time the forward pass of each model on the same rows of a dataset.

    Each round takes another batch of real rows and runs every model on it, starting with another model each time, so
    that a change of the machine's speed meets all of them alike. Median and quartiles over the rounds are reported;
    they spread with the lengths of the rows as well as with the machine. Only the forward pass is timed: tokenising,
    collating and the copy to the device are not. Models run in eval mode without autograd and get back the mode of
    each submodule.

    Args:
        models: By name, all on one device.
        dataset: Tokenised rows; repeated from the start if there are fewer than a batch.
        collator: Makes a padded batch of rows; each model gets the columns that its forward names, without labels.
        batch_sizes: Examples per forward pass.
        max_rounds: Timed rounds per batch size at most, and three at least.
        max_seconds: Time for everything, shared evenly by the batch sizes. Exceeded only where warm-up and three
            rounds take longer.

    Returns:
        Median and quartiles of milliseconds per example, with threads and device.

    Raises:
        ValueError: No models, no rows, or models on several devices.
    """
    devices = {model.device for model in models.values()}
    if len(devices) != 1 or len(dataset) == 0:
        raise ValueError(
            f"Expected models on one device and at least one row to time, got {len(models)} models on "
            f"{sorted(map(str, devices))} and {len(dataset)} rows. Move the models to one device first."
        )
    device = devices.pop()
    medians: dict[str, dict[int, float]] = {name: {} for name in models}
    quartiles: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in models}
    num_rounds = {}
    with _eval_mode(models.values()), torch.inference_mode():
        for batch_size in batch_sizes:
            batches = _batches(dataset, collator, batch_size, device)
            rounds = _time_rounds(models, batches, max_rounds, max_seconds / len(batch_sizes))
            num_rounds[batch_size] = len(rounds)
            for name in models:
                times = [1000.0 * seconds[name] / batch_size for seconds in rounds]
                low, middle, high = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
                medians[name][batch_size], quartiles[name][batch_size] = middle, (low, high)
    return Latency(medians, quartiles, num_rounds, torch.get_num_threads(), str(device))


@contextmanager
def _eval_mode(models: Any) -> Iterator[None]:
    modes = [(module, module.training) for model in models for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def _batches(
    dataset: Any,
    collator: Callable[[list[Any]], Mapping[str, Any]],
    batch_size: int,
    device: torch.device,
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of rows in one fixed shuffled order: files are often sorted by length or label."""
    order = np.random.default_rng(0).permutation(len(dataset))
    position = 0
    while True:
        rows = [_without_text(dataset[int(order[(position + i) % len(order)])]) for i in range(batch_size)]
        position += batch_size
        yield {name: value.to(device) for name, value in collator(rows).items() if isinstance(value, torch.Tensor)}


def _without_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as a collator can pad it: a split may still hold the texts beside their tokens."""
    return {name: value for name, value in row.items() if not isinstance(value, str)}


def _time_rounds(
    models: Mapping[str, PreTrainedModel],
    batches: Iterator[dict[str, torch.Tensor]],
    max_rounds: int,
    max_seconds: float,
) -> list[dict[str, float]]:
    """Seconds per forward pass: one dict by model name for each round."""
    deadline = time.perf_counter() + max_seconds
    names, columns = list(models), {name: _columns(model) for name, model in models.items()}
    rounds: list[dict[str, float]] = []
    is_warm = False
    while len(rounds) < max(max_rounds, _MIN_ROUNDS):
        if len(rounds) >= _MIN_ROUNDS and time.perf_counter() > deadline:
            break
        batch = next(batches)
        start = len(rounds) % len(names)
        seconds = {}
        for name in names[start:] + names[:start]:
            inputs = {column: value for column, value in batch.items() if column in columns[name]}
            seconds[name] = _time_forward(models[name], inputs)
        if is_warm:
            rounds.append(seconds)
        is_warm = True
    return rounds


def _columns(model: PreTrainedModel) -> set[str]:
    return set(inspect.signature(model.forward).parameters) - {"labels", "label", "label_ids"}


def _time_forward(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> float:
    _synchronise(model.device)
    start = time.perf_counter()
    model(**inputs)
    _synchronise(model.device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
