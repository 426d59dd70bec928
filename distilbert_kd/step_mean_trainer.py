"""What Trainers have in common whose loss is a mean over a whole optimizer step."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import TrainOutput

from distilbert_kd.deep_terms import without_projections
from distilbert_kd.errors import DivergedError
from distilbert_kd.sharding import shard_by_layer
from distilbert_kd.term_means import TermMeans


__all__ = ["StepMeanTrainer"]

logger = logging.getLogger(__name__)


class StepMeanTrainer(Trainer):
    """A Trainer whose `compute_loss` divides by what the whole step holds, on all processes and accumulation steps.

    It logs the terms of the loss that are added to `term_means`; what is not finite ends it, and is not saved.
    """

    # Without this, Trainer guesses from the signature of the model, and is off by the number of accumulation steps
    # for BERT and its family.
    loss_is_scaled_for_ga = True

    model: PreTrainedModel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes what `Trainer` takes."""
        self.term_means = TermMeans()
        super().__init__(*args, **kwargs)
        shard_by_layer(self.accelerator, self.model)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> None:
        """Nothing: Trainer counts labels here, for each evaluation batch too; a subclass counts what it needs."""

    def logged(self, terms: dict[str, float]) -> dict[str, float]:
        """What is logged beside Trainer's own numbers.

        Args:
            terms: the mean of each term since the last log line.

        Returns:
            The same, or more.
        """
        return terms

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer, with the terms of the loss beside the loss.

        Args:
            logs: what to log.
            start_time: of the training.

        Raises:
            DivergedError: the loss, a term or the gradient is not finite.
        """
        if "loss" in logs:
            logs |= self.logged(self.term_means.pop(self.accelerator))
            # Under fp16 an infinite gradient is the scaler's way to find its scale: that step is skipped.
            scaled = {"grad_norm"} if self.accelerator.scaler is not None else set()
            self._refuse_non_finite({name: torch.tensor(logs[name]) for name in logs.keys() - scaled})
        super().log(logs, start_time)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As Trainer, which comes here for each training and each try with a smaller batch."""
        self.term_means = TermMeans()
        return super()._inner_training_loop(*args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As Trainer.

        Args:
            *args: as Trainer.
            **kwargs: as Trainer.

        Returns:
            Steps, mean loss and speed, as Trainer.

        Raises:
            DivergedError: a weight is not finite at the end.
        """
        output = super().train(*args, **kwargs)
        self._refuse_non_finite(dict(self.model.named_parameters()))
        return output

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As Trainer, but weights that are not finite are never saved, nor are projections, except in checkpoints.

        Args:
            output_dir: where to; the training arguments' when not given.
            _internal_call: Trainer's own.

        Raises:
            DivergedError: a weight is not finite.
        """
        self._refuse_non_finite(dict(self.model.named_parameters()))
        with nullcontext() if _internal_call else without_projections(self.model):  # a checkpoint goes on with them
            super().save_model(output_dir, _internal_call)

    def _refuse_non_finite(self, tensors: Mapping[str, Tensor]) -> None:
        broken = sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor).all())
        if not broken:
            return
        message = (
            f"Expected finite numbers, got NaN or infinity in {', '.join(broken[:3])} at step "
            f"{self.state.global_step}. Such weights are not saved. Lower the learning rate, or look for rows with "
            "broken targets."
        )
        if getattr(self, "hp_search_backend", None) is None:
            raise DivergedError(message)
        logger.warning("%s The search goes on.", message)  # a trial that fails is the search's to judge
