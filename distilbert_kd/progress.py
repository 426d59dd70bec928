"""Progress in lines, for output that is no terminal."""

import logging
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distilbert_kd.deep_terms import DEEP_TERMS


__all__ = ["ProgressLines"]

logger = logging.getLogger(__name__)

_SHOWN = ("loss", "hard_loss", "soft_loss", "eval_loss", "eval_score")


class ProgressLines(TrainerCallback):
    """One line for each log of a training: what is trained, how far it is, and its losses."""

    def __init__(self, what: str, terms: Sequence[str] = ()) -> None:
        """Names what is trained, for example "student", and what is shown beside the usual losses."""
        self.what = what
        self.shown = (*_SHOWN, *terms, *(name for name in DEEP_TERMS if name not in terms))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes the line."""
        values = ", ".join(f"{name} {logs[name]:.4f}" for name in self.shown if logs and name in logs)
        if state.is_world_process_zero and values:
            logger.info(
                "%s: step %d of %d, epoch %.2f: %s",
                self.what,
                state.global_step,
                state.max_steps,
                state.epoch or 0,
                values,
            )
