"""The pattern that most projects copy, with the names that transformers 5 wants.

Source: https://www.philschmid.de/knowledge-distillation-bert-transformers (2022).
"""

from typing import Any

import torch
from job import ALPHA, TEMPERATURE
from torch import nn
from torch.nn import functional
from transformers import Trainer


__all__ = ["CopiedTrainer"]


class CopiedTrainer(Trainer):
    """A Trainer that asks the teacher for each batch again."""

    def __init__(
        self, *args: Any, teacher_model: Any, temperature: float = 2.0, alpha: float = 0.5, **kwargs: Any
    ) -> None:
        """Takes what `Trainer` takes, and the teacher."""
        super().__init__(*args, **kwargs)
        self.temperature, self.alpha = temperature, alpha
        self.teacher = teacher_model.to(self.args.device).eval()
        self.loss_function = nn.KLDivLoss(reduction="batchmean")

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Half the labels' loss, half the teacher's at temperature T, times T^2."""
        outputs = model(**inputs)
        with torch.no_grad():
            teacher_outputs = self.teacher(**inputs)
        soft = self.loss_function(
            functional.log_softmax(outputs.logits / TEMPERATURE, dim=-1),
            functional.softmax(teacher_outputs.logits / TEMPERATURE, dim=-1),
        )
        loss = (1 - ALPHA) * outputs.loss + ALPHA * TEMPERATURE**2 * soft
        return (loss, outputs) if return_outputs else loss
