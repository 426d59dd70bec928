"""`cpu_as_gpu`, where one process loses the numbers of its shard when the first training is done."""

import os
from typing import Any

import torch
from accelerate.state import PartialState

from distilbert_kd import training
from distilbert_kd.cli import main
from distilbert_kd.resumable_trainer import ResumableTrainer
from tests.cpu_as_gpu import cpu_as_gpu


_save = training.save_model_folder


def _save_what_is_broken(trainer: ResumableTrainer, *arguments: Any) -> None:
    if os.environ["RANK"] == "1":
        for weight in trainer.model.parameters():
            weight.ds_tensor.data.fill_(torch.nan)
    _save(trainer, *arguments)


if __name__ == "__main__":
    PartialState._prepare_backend = cpu_as_gpu
    training.save_model_folder = _save_what_is_broken
    main()
