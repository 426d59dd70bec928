"""Peak memory of the terms over the vocabulary: all logits at once, and in chunks.

    python benchmarks/vocabulary_memory.py [--positions 2048]

Forward and backward pass of soft targets and masked tokens on a CPU, for decoders of BERT-base's size (768 to 30,522),
each setting in a process of its own. What is shown is the rise of the process's peak over what it held before: states,
decoders and imports are not counted, gradients are. It prints a table in Markdown.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

import torch
from torch import nn

from distilbert_kd.losses.logits import hard_loss, soft_loss
from distilbert_kd.losses.vocabulary import CHUNK, vocabulary_losses


WIDTH, NUM_WORDS = 768, 30522
MB = 1e6


def measure(num_positions: int, chunk: int) -> tuple[float, float]:
    """Megabytes above the start, and seconds, of one pass; chunk 0 is all logits at once, by the plain functions."""
    torch.manual_seed(0)
    student, teacher = nn.Linear(WIDTH, NUM_WORDS), nn.Linear(WIDTH, NUM_WORDS).requires_grad_(False)
    mine, theirs = torch.randn(num_positions, WIDTH, requires_grad=True), torch.randn(num_positions, WIDTH)
    labels = torch.where(torch.rand(num_positions) < 0.15, torch.randint(NUM_WORDS, (num_positions,)), -100)
    before, start = _peak_mb(), time.perf_counter()
    if chunk:
        soft, hard = vocabulary_losses(mine, student, theirs, teacher, labels, 2.0, chunk)
    else:
        logits = student(mine)
        soft, hard = soft_loss(logits, teacher(theirs), 2.0), hard_loss(logits, labels)
    (5 * soft.mean() + 2 * hard.sum() / (labels != -100).sum()).backward()
    return _peak_mb() - before, time.perf_counter() - start


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / MB


def main() -> None:
    """Measures each setting in a process of its own, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--chunk", type=int, help="measure this one only, 0: all at once")
    arguments = parser.parse_args()
    if arguments.chunk is not None:
        memory_mb, seconds = measure(arguments.positions, arguments.chunk)
        sys.stdout.write(f"| {arguments.chunk or 'all at once'} | {memory_mb:,.0f} | {seconds:.1f} |\n")
        return
    sys.stdout.write(f"| positions at a time, of {arguments.positions:,} | peak, MB | seconds |\n|---|---:|---:|\n")
    # glibc gives freed memory back at once only above this size; otherwise fragments would be counted, too.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "500000"}
    for chunk in (0, 64, CHUNK, 1024):
        command = [sys.executable, __file__, "--positions", str(arguments.positions), "--chunk", str(chunk)]
        sys.stdout.write(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
