"""Two facts of each optimizer step that all processes must agree on, learnt without waiting for the device."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.tensor import DTensor


__all__ = ["Flags", "StepFlags"]


@dataclass(frozen=True)
class Flags:
    """What was found of a step, on any process.

    Attributes:
        step: The number of optimizer steps when it was done.
        is_stop_wanted: Whether a process was told to stop.
        is_broken: Whether a loss or gradient was not finite.
        lag: How many steps ago that was.
    """

    step: int
    is_stop_wanted: bool
    is_broken: bool
    lag: int


class StepFlags:
    """Exchanges the flags of a step.

    On CUDA they are copied to pinned memory behind the step's own work, and read one step later, when they are there:
    the device always has the next step to do meanwhile. Elsewhere they are read at once. Several processes add theirs
    up, which is one all-reduce of two numbers for each step.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        """Takes the processes and the device."""
        self._accelerator = accelerator
        self._losses: Tensor | None = None
        self._pending: tuple[int, Tensor, torch.cuda.Event] | None = None

    def note(self, loss: Tensor) -> None:
        """Takes the loss of a batch, a number, on the device; sums stay finite only if each is."""
        loss = loss.detach().float()
        self._losses = loss if self._losses is None else self._losses + loss

    def exchange(self, step: int, is_stop_wanted: bool, grad_norm: Tensor | float | None = None) -> Flags | None:
        """The flags that are known now. A collective call: every process makes it once for each step.

        Args:
            step: that was done.
            is_stop_wanted: on this process.
            grad_norm: of the step, where it tells something.

        Returns:
            This step's flags, on CUDA those of the step before; None where there was none.
        """
        losses = torch.zeros((), device=self._accelerator.device) if self._losses is None else self._losses
        self._losses = None
        if grad_norm is not None:
            if isinstance(grad_norm, DTensor):  # of FSDP2
                grad_norm = grad_norm.full_tensor()
            losses = losses + torch.as_tensor(grad_norm, device=losses.device).detach().float()
        is_broken = torch.logical_not(torch.isfinite(losses)).float().reshape(())
        flags = torch.stack([torch.full_like(is_broken, float(is_stop_wanted)), is_broken])
        if self._accelerator.num_processes > 1:
            flags = self._accelerator.reduce(flags, "sum")
        if flags.device.type != "cuda":
            return _flags(step, flags, 0)
        before, self._pending = self._pending, _on_its_way(step, flags)
        return _arrived(before, step)

    def flush(self) -> Flags | None:
        """The flags of the last step, if they were not read yet: before a save, and at the end. Waits for the device.

        Returns:
            None where all were read.
        """
        pending, self._pending = self._pending, None
        return None if pending is None else _arrived(pending, pending[0])


def _on_its_way(step: int, flags: Tensor) -> "tuple[int, Tensor, torch.cuda.Event]":
    host = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
    host.copy_(flags, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return step, host, event


def _arrived(pending: "tuple[int, Tensor, torch.cuda.Event] | None", step: int) -> Flags | None:
    if pending is None:
        return None
    pending[2].synchronize()
    return _flags(pending[0], pending[1], step - pending[0])


def _flags(step: int, flags: Tensor, lag: int) -> Flags:
    stop, broken = flags.tolist()
    return Flags(step, stop > 0, broken > 0, lag)
