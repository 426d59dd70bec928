"""What Trainers have in common whose loss is a mean over a whole optimizer step."""

import json
import logging
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor
from transformers import PreTrainedModel
from transformers.trainer_utils import TrainOutput

from distilbert_kd.deep_terms import DeepTerms, without_projections
from distilbert_kd.errors import DivergedError
from distilbert_kd.processes import failing_together
from distilbert_kd.resumable_trainer import ResumableTrainer
from distilbert_kd.sampling import RankBatchSampler
from distilbert_kd.sharding import shard_by_layer
from distilbert_kd.step_flags import Flags
from distilbert_kd.storage import write_text
from distilbert_kd.term_means import TermMeans


__all__ = ["StepMeanTrainer"]

logger = logging.getLogger(__name__)


class StepMeanTrainer(ResumableTrainer):
    """A Trainer whose `compute_loss` divides by what the whole step holds, on all processes and accumulation steps.

    It logs the terms of the loss that are added to `term_means`; what is not finite ends it, and is not saved.

    Attributes:
        deep_terms: Terms that look inside the models, if a subclass has any.
        term_means: Sums of the terms since the last log line.
        row_losses: Of the last two steps: how many steps were done before it, and the losses of the rows of each
            batch, as far as a subclass adds them.
    """

    # Without this, Trainer guesses from the signature of the model, and is off by the number of accumulation steps
    # for BERT and its family.
    loss_is_scaled_for_ga = True

    model: PreTrainedModel
    deep_terms: DeepTerms | None = None
    #: Whether the loss uses weights that the outputs of the model don't lead to, such as projections. DDP, which looks
    #: from the outputs for weights without a gradient, would take those for such. Set before `Trainer.__init__`.
    is_loss_beyond_outputs = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes what `Trainer` takes."""
        self.term_means = TermMeans()
        self.row_losses: deque[tuple[int, list[Tensor]]] = deque(maxlen=2)
        super().__init__(*args, **kwargs)
        shard_by_layer(self.accelerator, self.model)

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        arguments = super()._build_accelerator_args(**kwargs)
        if self.is_loss_beyond_outputs and self.args.ddp_find_unused_parameters is None:
            for handler in arguments["kwargs_handlers"]:
                if isinstance(handler, DistributedDataParallelKwargs):
                    handler.find_unused_parameters = False
        return arguments

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
        self.row_losses.clear()
        return super()._inner_training_loop(*args, **kwargs)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """As Trainer, and begins a list of the losses of their rows.

        Args:
            epoch_iterator: gives batches.
            num_batches: of one step.
            device: of the count.

        Returns:
            At most `num_batches` batches of this process, and what the step holds.
        """
        self.row_losses.append((self.state.global_step, []))
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    # The sums of the terms since the last log line are part of a process's state, as its random numbers are.

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        write_text(self._sums_of(output_dir), json.dumps(self.term_means.state()))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None and self._sums_of(checkpoint).is_file():
            self.term_means.load(json.loads(self._sums_of(checkpoint).read_text("utf-8")), self.accelerator.device)

    def _sums_of(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"term_sums_{self.args.process_index}.json"

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As Trainer; the student has its projections meanwhile, if it needs any.

        Args:
            *args: as Trainer.
            **kwargs: as Trainer.

        Returns:
            Steps, mean loss and speed, as Trainer.

        Raises:
            DivergedError: a weight is not finite at the end.
        """
        with self.deep_terms.attached() if self.deep_terms else nullcontext():
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

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """As Trainer, which comes here with whole weights, where they were in shards, on the process that writes."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:  # else not every process need come here
            with failing_together():
                self._refuse_non_finite(state_dict or {})  # under ZeRO 3 the model's own are empty
        super()._save(output_dir, state_dict)

    def end_broken(self, flags: Flags) -> None:
        """Ends the training at a step whose loss or gradient is not finite.

        Args:
            flags: of that step.

        Raises:
            DivergedError: names the terms, and the rows where that is known.
        """
        if getattr(self, "hp_search_backend", None) is not None:
            return  # a trial that fails is the search's to judge
        found = gather_object([(self.term_means.broken(), *self._broken_rows(flags.lag))])
        terms = {name for names, _, _ in found for name in names}
        rows = sorted(row for _, numbers, _ in found for row in numbers)
        what = ", ".join(sorted(terms - {"loss"})) or ("the loss" if terms else "the gradient")
        where = _rows_named(rows, sum(num_rows for _, _, num_rows in found))
        raise DivergedError(
            f"Expected finite numbers, got NaN or infinity in {what} at step {flags.step}{where}. Nothing of it is "
            "saved. Lower the learning rate, or look for rows with broken targets."
        )

    def _broken_rows(self, lag: int) -> tuple[list[int], int]:
        """Numbers in the training set of the rows with a broken loss, and how many rows that step had, here."""
        sampler = getattr(self.callback_handler.train_dataloader, "batch_sampler", None)
        if len(self.row_losses) <= lag or not isinstance(sampler, RankBatchSampler):
            return [], 0
        if self.args.ignore_data_skip:  # then a step's number doesn't tell its place in the epoch
            return [], 0
        num_done, batches = self.row_losses[-1 - lag]
        num_accumulated = self.args.gradient_accumulation_steps
        steps_per_epoch = math.ceil(len(sampler) / num_accumulated)
        first = num_done % steps_per_epoch * num_accumulated
        broken = [
            rows[position]
            for number, losses in enumerate(batches, start=first)
            if (rows := sampler.rows_of(number)) and len(rows) == len(losses)
            for position in torch.nonzero(~torch.isfinite(losses)).flatten().tolist()
        ]
        return broken, sum(map(len, batches))

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


def _rows_named(rows: Sequence[int], num_rows: int) -> str:
    """Where a step broke: a few of its rows by number, or all of them, which speaks for the rate, not for the rows."""
    if not rows or len(rows) == num_rows > 1:
        return f", in all {num_rows} training rows of the step" if rows else ""
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f", in training rows {', '.join(map(str, rows[:5]))}{more} (of the rows trained on; the first is 0)"
