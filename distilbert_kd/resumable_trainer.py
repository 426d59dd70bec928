"""A Trainer that can be cut off at any moment, and goes on to the same weights.

What `transformers.Trainer` lacks for that (read in 5.23): it removes old checkpoints before the new one is known to be
whole; takes a half written one for whole; saves at the end of an epoch before the epoch's evaluation, which is then
lost; does one step too many when it goes on from its own last step; and knows the best checkpoint by a path that may
have moved.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import SaveStrategy, TrainOutput

from distilbert_kd.checkpoints import (
    COMMIT,
    check_space,
    commit,
    newest_whole,
    refuse_damaged,
    rotate,
    size_of_next,
)
from distilbert_kd.errors import StoppedError, StorageError
from distilbert_kd.processes import failing_together
from distilbert_kd.step_flags import Flags, StepFlags
from distilbert_kd.storage import room_for, storage_errors


__all__ = ["ResumableTrainer"]

logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """A Trainer whose checkpoints are committed (see `distilbert_kd.checkpoints`), and which stops when it is told to.

    Attributes:
        identity: What the training depends on, ready for JSON; it stands in the record of each checkpoint.
        checked: A checkpoint that `newest_whole` found, whose every byte need not be read again.
        is_stop_wanted: Is asked after each step. When any process says yes, all finish the step, save, and raise.
    """

    model: nn.Module

    identity: Mapping[str, Any] = {}
    checked: Path | None = None
    is_stop_wanted: Callable[[], bool] = staticmethod(lambda: False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes what `Trainer` takes."""
        self._step_flags: StepFlags | None = None
        self._last_step = -1
        self._saved_step = -1
        self._is_save_due = False
        self._is_stop_due = False
        super().__init__(*args, **kwargs)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """As Trainer, which goes on from whole checkpoints only.

        Args:
            resume_from_checkpoint: a checkpoint; True for the last whole one in the output folder.
            *args: as Trainer.
            **kwargs: as Trainer.

        Returns:
            Steps, mean loss and speed, as Trainer.

        Raises:
            StorageError: the checkpoint differs from its record.
            StoppedError: the training was told to stop.
        """
        if resume_from_checkpoint is True:
            with failing_together():
                found = [newest_whole(Path(str(self.args.output_dir))) if self.is_world_process_zero() else None]
            broadcast_object_list(found)
            resume_from_checkpoint = True if found[0] is None else str(found[0])  # of True Trainer says: none is there
        elif resume_from_checkpoint and Path(resume_from_checkpoint) != self.checked:
            refuse_damaged(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As Trainer, which comes here for each training and each try with a smaller batch."""
        if self.args.save_strategy != SaveStrategy.NO:
            self._check_space(Path(str(self.args.output_dir)))  # before the work, not after the first epoch
        self._step_flags = StepFlags(self.accelerator)
        self._saved_step, self._is_save_due, self._is_stop_due = -1, False, False
        output = super()._inner_training_loop(*args, **kwargs)
        self._heed(self._step_flags.flush())
        return output

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """As Trainer; the best checkpoint is looked for beside the one that is gone on from."""
        trained = super()._init_training_state(*args, **kwargs)
        self._last_step = self.state.global_step
        if self.state.best_global_step:
            place = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.best_global_step}"
            if place.is_dir():
                self.state.best_model_checkpoint = str(place)
        return trained

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As Trainer, which would do one more step when it goes on from its last one in the middle of an epoch."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As Trainer, and takes note of the loss.

        Args:
            *args: as Trainer.
            **kwargs: as Trainer.

        Returns:
            The loss.
        """
        loss = super().training_step(*args, **kwargs)
        if self._step_flags is not None:
            self._step_flags.note(loss)
        return loss

    def _maybe_log_save_evaluate(
        self,
        tr_loss: Tensor,
        grad_norm: Tensor | float | None,
        model: nn.Module,
        trial: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """As Trainer, which comes here after each step and once more after each epoch.

        What is to be saved after the last step of an epoch is saved after the epoch, with its evaluation.
        """
        if self.state.global_step != self._last_step:  # a step was done
            self._last_step = self.state.global_step
            self._exchange_flags(grad_norm)
            is_last = self.control.should_training_stop or self.control.should_epoch_stop
            if is_last or (self.state.epoch or 0.0).is_integer():
                self._is_save_due, self.control.should_save = self.control.should_save, False
                super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
                return
        else:
            self.control.should_save |= self._is_save_due
            self._is_save_due = False
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        if self._is_stop_due:
            self._stop(model, trial)

    def _exchange_flags(self, grad_norm: Tensor | float | None) -> None:
        assert self._step_flags is not None
        # Under fp16 an infinite gradient is the scaler's way to find its scale: that step is skipped.
        norm = None if self.accelerator.scaler is not None else grad_norm
        self._heed(self._step_flags.exchange(self.state.global_step, self.is_stop_wanted(), norm))

    def _heed(self, flags: Flags | None) -> None:
        if flags is None:
            return
        if flags.is_broken:
            self.end_broken(flags)
        self._is_stop_due |= flags.is_stop_wanted

    def end_broken(self, flags: Flags) -> None:
        """Is called when a loss or gradient was not finite, on all processes at the same step.

        Args:
            flags: of that step.
        """

    def _stop(self, model: nn.Module, trial: Any) -> None:
        if self._saved_step != self.state.global_step:
            is_only_model, self.args.save_only_model = self.args.save_only_model, False
            try:
                self._save_checkpoint(model, trial)
            finally:
                self.args.save_only_model = is_only_model
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        raise StoppedError(
            f"Told to stop after step {self.state.global_step} of {self.state.max_steps}. All of it is saved in "
            f"{self._get_output_dir(trial)}. Start the same command again to go on from there."
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As Trainer, which does more together in a checkpoint after the model is written.

        Args:
            output_dir: where to; the training arguments' when not given.
            _internal_call: Trainer's own, for a checkpoint.
        """
        with self.saving_together() if _internal_call else nullcontext():
            super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As Trainer; then, when every process is done, the main one commits, and only then removes old ones."""
        if self._step_flags is not None:
            self._heed(self._step_flags.flush())  # no weights of NaN in a checkpoint
        folder = Path(self._get_output_dir(trial))
        place = folder / f"checkpoint-{self.state.global_step}"
        num_bytes = self._check_space(folder)
        if self.args.should_save:
            (place / COMMIT).unlink(missing_ok=True)
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # else Trainer removes old ones itself
        try:
            with self.saving_together(), storage_errors(place, num_bytes), _whole_or_none(place, num_bytes):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        with failing_together():
            if self.args.should_save:
                best = self.state.best_model_checkpoint
                commit(
                    place,
                    step=self.state.global_step,
                    best_step=None if best is None else self.state.best_global_step,
                    is_resumable=not self.args.save_only_model,
                    identity=dict(self.identity),
                )
                rotate(folder, limit, None if best is None else Path(best))
        self._saved_step = self.state.global_step

    def _check_space(self, folder: Path) -> int:
        """The size of the next checkpoint; refuses a disk without room for it, and a folder that is gone."""
        weights = list(self.model.parameters())
        num_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
        if not self.args.save_only_model and "adamw_torch" in str(self.args.optim).lower():
            num_bytes += sum(2 * weight.numel() * weight.element_size() for weight in weights if weight.requires_grad)
        num_bytes = size_of_next(folder, num_bytes)
        with failing_together():
            if self.args.should_save and not Path(str(self.args.output_dir)).is_dir():
                raise StorageError(
                    f"Expected the folder {self.args.output_dir} in which this training began, got none: somebody "
                    "removed or moved it. Bring it back, or start the same command again to begin anew."
                )
            if self.args.should_save:
                check_space(folder, num_bytes)
        return num_bytes

    @contextmanager
    def saving_together(self) -> Iterator[None]:
        """Within it, the model or a checkpoint is written: a process that can't write ends the others with it.

        In shards a save is full of things that all do together, and a process that fails in the middle of them ends
        by itself: the others are left to the launcher, but see `StepMeanTrainer._save`.

        Yields:
            Nothing.
        """
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            yield
            self.accelerator.wait_for_everyone()
        else:
            with failing_together():
                yield


@contextmanager
def _whole_or_none(place: Path, num_bytes: int) -> Iterator[None]:
    """What can't be written whole is removed. Torch says of a full disk only that it is somewhere else in the file."""
    try:
        yield
    except Exception as error:
        shutil.rmtree(place, ignore_errors=True)
        if not (isinstance(error, RuntimeError) and "inline_container" in str(error)):
            raise
        raise StorageError(
            f"Expected to write the checkpoint {place}, got: a file was cut short, as on a full disk or under a "
            f"limit: {room_for(place, num_bytes)[1]}. The checkpoints before it are untouched. Make room and start "
            "the same command again."
        ) from error
