"""TextBrewer 0.2.1.post1 on the same job, as its documentation shows it and at its best.

Source: https://textbrewer.readthedocs.io (Workflow; BasicDistiller for the cache).
"""

import logging
import math
import tempfile
from typing import Any

import torch
from cost import Cost, measured
from job import ALPHA, BATCH_SIZE, LEARNING_RATE, TEMPERATURE, WARMUP, Job
from textbrewer import BasicDistiller, DistillationConfig, GeneralDistiller, TrainingConfig
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from distilbert_kd.length_grouping import row_lengths


__all__ = ["train_with_textbrewer"]


def train_with_textbrewer(
    student: PreTrainedModel, teacher: PreTrainedModel, job: Job, num_epochs: int, is_best: bool
) -> Cost:
    """Trains a student.

    As documented: `GeneralDistiller`, the recommended class, batches padded to their longest row, AdamW as torch makes
    it. At its best: `BasicDistiller`, which alone can keep the teacher's logits (of whole batches, in memory); rows
    sorted by length before they are made into batches; fused AdamW. Its soft loss lacks the factor T^2, so the weight
    has it.

    Args:
        student: is trained.
        teacher: is asked.
        job: rows and tokenizer.
        num_epochs: passes over the rows.
        is_best: at its best.

    Returns:
        What it cost, the teacher included.
    """
    logging.getLogger("Distillation").setLevel(logging.WARNING)
    rows, tokenizer = job.rows("train"), job.tokenizer()

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        return dict(tokenizer.pad(features, return_tensors="pt"))  # a plain dict: other mappings are unpacked

    def adapt(batch: Any, outputs: Any) -> dict[str, Any]:
        return {"logits": outputs.logits, "losses": outputs.loss}

    with tempfile.TemporaryDirectory() as folder, measured() as cost:
        if is_best:
            rows = rows.select(row_lengths(rows).argsort(kind="stable"))
        loader = DataLoader(rows, BATCH_SIZE, shuffle=not is_best, collate_fn=collate)  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(
            student.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True if is_best else None
        )
        num_steps = len(loader) * num_epochs
        distiller = (BasicDistiller if is_best else GeneralDistiller)(
            TrainingConfig(output_dir=folder, device="cpu", ckpt_epoch_frequency=num_epochs),
            DistillationConfig(
                temperature=TEMPERATURE,
                kd_loss_weight=ALPHA * TEMPERATURE**2,
                hard_label_weight=1 - ALPHA,
                is_caching_logits=is_best,
            ),
            teacher,
            student,
            adapt,
            adapt,
        )
        with distiller:
            distiller.train(
                optimizer,
                loader,
                num_epochs=num_epochs,
                scheduler_class=get_linear_schedule_with_warmup,
                scheduler_args={"num_warmup_steps": math.ceil(WARMUP * num_steps), "num_training_steps": num_steps},
                max_grad_norm=1.0,
            )
    return cost
