"""Where should DistilBERT's classification head start, when the teacher's is BERT's?

    GLUE_DIR=... python benchmarks/distilbert_head.py --out build/bench

BERT's head is Linear, tanh, Linear; DistilBERT's is Linear, ReLU, Linear. Each start is compared with the BERT student
of the same layers: before training (agreement on the dev split, with all layers and with half of them), and after a
short distillation, several seeds. Runs that are in the results file are not repeated.
"""

import argparse
import gc
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from cost import measured, setting_record
from job import ALPHA, TEMPERATURE, Job, prepare, training_arguments
from report import markdown_table, mean_and_error, write_json
from torch import nn
from transformers import PreTrainedModel, set_seed

from distilbert_kd.evaluation import evaluate_logits
from distilbert_kd.row_checks import TEACHER_LOGITS
from distilbert_kd.scoring import predict_logits
from distilbert_kd.student.build import build_student, count_layers
from distilbert_kd.trainer import DistillationTrainer


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """relu(slope (x + shift)) - slope shift = slope max(x, -shift) in place of tanh(x).

    Attributes:
        is_random: DistilBERT's own random start instead.
        shift: In units of x, what BERT's pooler gives to tanh.
        slope: Of the straight part.
        dropout: Of the head; None for the teacher's.
    """

    is_random: bool = False
    shift: float = 0.0
    slope: float = 1.0
    dropout: float | None = None


#: What is compared; None is the BERT student.
STARTS: dict[str, Start | None] = {
    "BERT student": None,
    "random": Start(is_random=True),
    "copied": Start(),
    "shift 0.5": Start(shift=0.5),
    "shift 1": Start(shift=1.0),
    "shift 2": Start(shift=2.0),
    "shift 1, slope 0.85": Start(shift=1.0, slope=0.85),
    "shift 1, no dropout": Start(shift=1.0, dropout=0.0),
}


@dataclass(frozen=True)
class Agreement:
    """A start before any training, against the BERT of the same layers.

    Attributes:
        start: Its name in `STARTS`.
        num_layers: Of both.
        kl_nats: Mean KL divergence from BERT's probabilities.
        same_share: Rows with BERT's class.
        dev_score: The task's score.
    """

    start: str
    num_layers: int
    kl_nats: float
    same_share: float
    dev_score: float


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        start: Its name in `STARTS`.
        seed: Of order and dropout, and of a random head.
        cpu_s: CPU seconds.
        dev_score: The task's score on the dev split.
        dev_loss: Cross-entropy to the labels there, in nats.
        held_out_score: The same on rows of the training file that no model saw.
        held_out_loss: Cross-entropy there.
    """

    start: str
    seed: int
    cpu_s: float
    dev_score: float
    dev_loss: float
    held_out_score: float
    held_out_loss: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, then writes `distilbert_head.json` and the table."""
    parser = argparse.ArgumentParser(description="Starts of DistilBERT's classification head.")
    parser.add_argument("--out", type=Path, required=True, help="folder for teacher, rows and results")
    parser.add_argument("--rows", type=int, default=1000, help="to train on")
    parser.add_argument("--prepared-rows", type=int, default=2000, help="as other benchmarks prepared them")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS), help="to be trained")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    datasets.disable_progress_bars()
    torch.set_num_threads(options.threads)
    path = options.out / "distilbert_head.json"
    found = json.loads(path.read_text("utf-8")) if path.exists() else {"agreements": [], "runs": []}
    settings_before = found.get("settings")
    runs, agreements = [Run(**run) for run in found["runs"]], [Agreement(**each) for each in found["agreements"]]
    job = prepare("sst2", options.prepared_rows, options.out)
    teacher = job.teacher()
    settings = {
        **setting_record(options.threads),
        "rows": options.rows,
        "epochs": options.epochs,
        "teacher_dev": job.teacher_scores,
        "starts": {name: start and asdict(start) for name, start in STARTS.items()},
    }
    kept = ("rows", "epochs", "teacher_dev", "starts", "versions")
    changed = [name for name in kept if settings_before and settings_before[name] != settings[name]]
    if changed:
        raise SystemExit(f"{path} holds runs of another setting ({', '.join(changed)}). Choose another --out.")
    agreements = agreements or [
        each for depth in (count_layers(teacher), 3) for each in _agreements(job, teacher, depth)
    ]
    for run in _missing_runs(job, teacher, runs, options):
        runs.append(run)
        content = {"agreements": [asdict(each) for each in agreements], "runs": [asdict(each) for each in runs]}
        write_json(path, {"settings": settings, **content})
        logger.info("%s", json.dumps(asdict(run)))
    table = _table(agreements, runs)
    (options.out / "distilbert_head.md").write_text(table + "\n", encoding="utf-8")
    logger.info("%s", table)


def student_of(teacher: PreTrainedModel, num_layers: int, start: Start | None, seed: int) -> PreTrainedModel:
    """A student with one of the heads; its encoder is the same for all starts."""
    bert: Any = build_student(teacher, num_layers)
    if start is None:
        return bert
    set_seed(seed)
    student: Any = build_student(teacher, num_layers, architecture="distilbert")
    if start.dropout is not None:
        student.config.seq_classif_dropout = student.dropout.p = start.dropout
    with torch.no_grad():
        if start.is_random:
            for layer in (student.pre_classifier, student.classifier):
                nn.init.normal_(layer.weight, std=student.config.initializer_range)
                nn.init.zeros_(layer.bias)
            return student
        pooler, classifier = bert.bert.pooler.dense, bert.classifier
        student.pre_classifier.weight.copy_(start.slope * pooler.weight)
        student.pre_classifier.bias.copy_(start.slope * (pooler.bias + start.shift))
        student.classifier.weight.copy_(classifier.weight)
        student.classifier.bias.copy_(classifier.bias - start.slope * start.shift * classifier.weight.sum(dim=1))
    return student


def _agreements(job: Job, teacher: PreTrainedModel, num_layers: int) -> Iterator[Agreement]:
    rows, tokenizer = job.rows("dev"), job.tokenizer()
    labels = np.array(rows["labels"][:])
    expected = None
    for name, start in STARTS.items():
        student = student_of(teacher, num_layers, start, seed=0)
        logits = predict_logits(student, tokenizer, rows, training_arguments(1, 0))
        expected = logits if expected is None else expected  # BERT comes first
        result = evaluate_logits(job.task, logits, labels, expected)
        nearness: Any = result.fidelity
        yield Agreement(name, num_layers, nearness.kl_nats, nearness.agreement, result.score)


def _missing_runs(
    job: Job, teacher: PreTrainedModel, done: Sequence[Run], options: argparse.Namespace
) -> Iterator[Run]:
    """Yields runs, all starts of a seed before the next seed, so that a change of the machine meets all of them."""
    keys = {(run.start, run.seed) for run in done}
    rows = job.rows("train").select(range(options.rows))
    logits = predict_logits(teacher, job.tokenizer(), rows, training_arguments(1, 0))
    rows = rows.add_column(TEACHER_LOGITS, logits.tolist())
    for seed in range(options.seeds):
        for name, start in STARTS.items():
            if (name, seed) in keys or name not in options.starts:
                continue
            student = student_of(teacher, 3, start, seed)
            cpu_s = _train(student, job, rows, seed, options.epochs)
            dev, held_out = job.score(student), job.score(student, "held_out")
            yield Run(name, seed, cpu_s, dev["score"], dev["loss"], held_out["score"], held_out["loss"])
            del student
            gc.collect()


def _train(student: PreTrainedModel, job: Job, rows: datasets.Dataset, seed: int, num_epochs: int) -> float:
    set_seed(seed)
    with measured() as cost:
        DistillationTrainer(
            model=student,
            args=training_arguments(num_epochs, seed, train_sampling_strategy="group_by_length"),
            train_dataset=rows,
            processing_class=job.tokenizer(),
            temperature=TEMPERATURE,
            alpha=ALPHA,
            first_position_only=True,
        ).train()
    return cost.cpu_s


def _table(agreements: Sequence[Agreement], runs: Sequence[Run]) -> str:
    depths = list(dict.fromkeys(each.num_layers for each in agreements))
    found = {(each.start, each.num_layers): each for each in agreements}
    lines = []
    for name in STARTS:
        cells = [name]
        for depth in depths:
            agreement = found[name, depth]
            cells += [f"{agreement.kl_nats:.5f}", f"{100 * agreement.same_share:.1f}"]
        for field, unit in (("dev_score", 100), ("held_out_score", 100), ("dev_loss", 1000), ("held_out_loss", 1000)):
            values = [unit * getattr(run, field) for run in runs if run.start == name]
            mean, error = mean_and_error(values)
            cells.append(f"{mean:.1f} ± {error:.1f}" if len(values) > 1 else f"{mean:.1f}")
        lines.append([*cells, str(len(values))])
    header = ["start"]
    for depth in depths:
        header += [f"KL, {depth} layers", f"same class, {depth} layers (%)"]
    return markdown_table([*header, "dev score", "held-out score", "dev loss", "held-out loss", "seeds"], lines)


if __name__ == "__main__":
    main()
