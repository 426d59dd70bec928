"""Means of the loss terms between two log lines, over all ranks and accumulation steps."""

import torch
from accelerate import Accelerator
from torch import Tensor


__all__ = ["TermMeans"]


class TermMeans:
    """Adds up terms on the device and is read once per log line, so that no step waits for the device."""

    def __init__(self) -> None:
        """Starts empty."""
        self._totals: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, counted: Tensor) -> None:
        """Adds the values, (B,), of the rows that are `counted`, (B,), bool."""
        dtype = _dtype(values.device)
        values = torch.where(counted, values.detach(), torch.zeros_like(values)).to(dtype)
        total = torch.stack((values.sum(), counted.sum().to(dtype)))
        self._totals[name] = self._totals[name] + total if name in self._totals else total

    def pop(self, accelerator: Accelerator) -> dict[str, float]:
        """Means since the last call, over the rows of all ranks; a term without a row is left out.

        A collective call: every rank makes it, with the same terms.
        """
        if not self._totals:
            return {}
        names = sorted(self._totals)
        totals = accelerator.reduce(torch.stack([self._totals[name] for name in names]), "sum").tolist()
        self._totals = {}
        return {name: total / count for name, (total, count) in zip(names, totals, strict=True) if count > 0}

    def broken(self) -> list[str]:
        """Names of the terms with a value since the last call of `pop` that is not finite, on this rank."""
        return sorted(name for name, total in self._totals.items() if not torch.isfinite(total).all())

    def state(self) -> dict[str, list[float]]:
        """What `load` takes: the sum and the count of each term on this rank, exactly, ready for JSON."""
        return {name: total.tolist() for name, total in self._totals.items()}

    def load(self, state: dict[str, list[float]], device: torch.device) -> None:
        """Goes on from what `state` gave, on a device."""
        self._totals = {name: torch.tensor(pair, dtype=_dtype(device), device=device) for name, pair in state.items()}


def _dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
