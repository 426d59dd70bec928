"""One training of `scaling.py`, in a process of its own.

The pass of the teacher is made by a teacher of one layer, which costs a sixth: what is asked here is whether time and
memory grow with the rows, and the pass reads, sorts, asks and writes the same.
"""

import argparse
import json
import tempfile
from pathlib import Path

import datasets
import torch
from cost import measured, peak_memory_mb
from job import ALPHA, MAX_LENGTH, TEMPERATURE, Job, training_arguments
from transformers import set_seed

from distilbert_kd.student.build import build_student
from distilbert_kd.teacher_cache import cached_teacher_logits
from distilbert_kd.trainer import DistillationTrainer


def main() -> None:
    """Runs one training and writes its record."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in ("out", "record"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("rows", "layers", "steps", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    torch.set_num_threads(options.threads)
    job = Job("sst2", options.rows, options.out)
    texts, rows, tokenizer, whole_teacher = job.texts(), job.rows("train"), job.tokenizer(), job.teacher()
    student = build_student(whole_teacher, num_layers=options.layers)
    teacher = build_student(whole_teacher, num_layers=1, layers="last").eval()
    del whole_teacher
    start_mb = peak_memory_mb()
    arguments = training_arguments(1, options.seed, train_sampling_strategy="group_by_length", max_steps=options.steps)
    set_seed(options.seed)
    with tempfile.TemporaryDirectory() as folder, measured() as teacher_pass:
        logits = cached_teacher_logits(teacher, tokenizer, texts, rows, MAX_LENGTH, arguments, Path(folder))
        rows = datasets.concatenate_datasets([rows, logits], axis=1)
        del teacher
        with measured() as training:
            DistillationTrainer(
                model=student,
                args=arguments,
                train_dataset=rows,
                processing_class=tokenizer,
                temperature=TEMPERATURE,
                alpha=ALPHA,
                first_position_only=True,
            ).train()
    record = {
        "rows": options.rows,
        "layers": options.layers,
        "steps": options.steps,
        "train_cpu_s_per_1000": 1000 * training.cpu_s / (options.steps * arguments.per_device_train_batch_size),
        "pass_cpu_s_per_1000": 1000 * (teacher_pass.cpu_s - training.cpu_s) / options.rows,
        "start_memory_mb": start_mb,
        "peak_memory_mb": peak_memory_mb(),
    }
    options.record.write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
