"""The limit: nothing but the mathematics.

Batches are tensors before the clock starts, in the same windows as ours, and in the same order. There is no trainer,
no data loader, no collator, no log, no check.
"""

import math
from typing import Any

import numpy as np
import torch
from cost import Cost, measured
from job import ALPHA, BATCH_SIZE, LEARNING_RATE, TEMPERATURE, WARMUP, Job
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from distilbert_kd.first_position import first_position_only
from distilbert_kd.length_grouping import LengthGroupedBatchSampler, row_lengths


__all__ = ["train_bare"]


def train_bare(student: PreTrainedModel, job: Job, num_epochs: int, seed: int) -> tuple[Cost, Cost]:
    """Trains a student with the teacher's logits at hand.

    Args:
        student: is trained; frozen parameters stay.
        job: rows and teacher.
        num_epochs: passes over the rows.
        seed: of the order of batches.

    Returns:
        What one pass of the teacher cost, over batches sorted by length, and what the training cost.
    """
    rows, tokenizer = job.rows("train"), job.tokenizer()
    lengths = row_lengths(rows)
    sampler = LengthGroupedBatchSampler(lengths, BATCH_SIZE, seed, drop_last=False)

    def tensors(numbers: Any) -> dict[str, Tensor]:
        return dict(tokenizer.pad(rows[numbers], return_tensors="pt"))

    order = np.argsort(-lengths, kind="stable")
    sorted_batches = [tensors(order[start : start + BATCH_SIZE]) for start in range(0, len(order), BATCH_SIZE)]
    teacher_pass, logits = _ask(job.teacher(), sorted_batches)
    logits[order] = logits.clone()
    batches = []
    for epoch in range(num_epochs):
        sampler.set_epoch(epoch)
        batches += [(tensors(numbers), logits[numbers]) for numbers in sampler]

    with measured() as training, first_position_only(student):
        parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(WARMUP * len(batches)), len(batches))
        for inputs, teacher_logits in batches:
            outputs = student(**inputs)
            soft = functional.kl_div(
                (outputs.logits / TEMPERATURE).log_softmax(-1),
                (teacher_logits / TEMPERATURE).softmax(-1),
                reduction="batchmean",
            )
            ((1 - ALPHA) * outputs.loss + ALPHA * TEMPERATURE**2 * soft).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return teacher_pass, training


def _ask(teacher: PreTrainedModel, batches: list[dict[str, Tensor]]) -> tuple[Cost, Tensor]:
    inputs = [{name: value for name, value in batch.items() if name != "labels"} for batch in batches]
    with measured() as cost, torch.no_grad(), first_position_only(teacher):
        logits = torch.cat([teacher(**batch).logits for batch in inputs])
    return cost, logits
