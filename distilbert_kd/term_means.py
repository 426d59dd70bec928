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
        dtype = torch.float32 if values.device.type == "mps" else torch.float64
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
