"""Augmentation against alpha: how much should the labels of altered copies still weigh?

    GLUE_DIR=... OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python benchmarks/augmentation.py --out build/augmentation

A teacher that was fine-tuned on many rows of SST-2 (`--teacher-rows`), students with half its layers on few of them
(`--rows`). Each row has `--copies` copies whose words are replaced by embedding neighbours, a share p of them, and
these copies have an alpha of their own; gold rows have 0.5. All arms take the same number of steps, so that more rows
are no longer training. The control of each p learns from the same rows by the labels alone. Seeds are the outer loop,
so that a run that is cut short has compared the same arms. Runs that are in the results file are not repeated.
"""

import argparse
import gc
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from cost import measured, setting_record
from job import ALPHA, TEMPERATURE, Job, prepare, tokenized, training_arguments
from report import markdown_table, mean_and_error, new_figure, save_figure, write_json
from transformers import PreTrainedModel, set_seed

from distilbert_kd.augmentation.augmenting import augment
from distilbert_kd.augmentation.copies import Scheme
from distilbert_kd.data.loading import load_task
from distilbert_kd.data.task_data import IS_AUGMENTED
from distilbert_kd.recipe import Data
from distilbert_kd.row_checks import TEACHER_LOGITS
from distilbert_kd.scoring import predict_logits
from distilbert_kd.student.build import build_student
from distilbert_kd.trainer import DistillationTrainer


logger = logging.getLogger(__name__)

TASK_NAMES = {"sst2": "SST-2", "mrpc": "MRPC"}
NUM_LAYERS = 3
NUM_CANDIDATES = 15
FRACTIONS = (0.0, 0.1, 0.3, 0.6)
ALPHAS_AUGMENTED = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        fraction: p; 0 for the gold rows alone.
        alpha_augmented: Of the copies; None for the control.
        seed: Of copies, order and dropout.
        num_rows: Gold rows and copies.
        wrong_labels: Share of the copies of whose label the teacher's class is another; 0 without copies.
        dev_score: The task's score on the dev split.
        dev_loss: Cross-entropy to the labels there, in nats.
        cpu_s: CPU seconds of the training.
    """

    fraction: float
    alpha_augmented: float | None
    seed: int
    num_rows: int
    wrong_labels: float
    dev_score: float
    dev_loss: float
    cpu_s: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, then writes `augmentation.json`, the plot and the table."""
    parser = argparse.ArgumentParser(description="Scores of students by strength of augmentation and alpha.")
    parser.add_argument("--out", type=Path, required=True, help="folder for teacher, rows and results")
    parser.add_argument("--task", choices=TASK_NAMES, default="sst2")
    parser.add_argument("--rows", type=int, default=1000, help="gold rows of the students")
    parser.add_argument("--teacher-rows", type=int, default=10_000, help="rows of the teacher")
    parser.add_argument("--copies", type=int, default=2, help="of each gold row")
    parser.add_argument("--steps", type=int, default=160, help="of 32 rows, for each student")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="students train under autocast to bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    datasets.disable_progress_bars()
    torch.set_num_threads(options.threads)
    path = options.out / "augmentation.json"
    job = prepare(options.task, options.rows, options.out, options.teacher_rows)
    fixed = {name: getattr(options, name) for name in ("task", "rows", "teacher_rows", "copies", "steps", "bf16")}
    setting = {**setting_record(options.threads), **fixed, "teacher_dev": job.teacher_scores}
    runs = []
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in fixed if found["setting"][name] != setting[name]]
        if changed:
            raise SystemExit(f"{path} holds runs of another setting ({', '.join(changed)}). Choose another --out.")
        setting, runs = found["setting"], [Run(**run) for run in found["runs"]]
    for run in _missing_runs(job, runs, options):
        runs.append(run)
        write_json(path, {"setting": setting, "runs": [asdict(each) for each in runs]})
        logger.info("%s", json.dumps(asdict(run)))
    report(options.out, runs, job.teacher_scores["score"], TASK_NAMES[options.task])


def _missing_runs(job: Job, done: Sequence[Run], options: argparse.Namespace) -> Iterator[Run]:
    keys = {(run.fraction, run.alpha_augmented, run.seed) for run in done}
    for seed in range(options.seeds):
        for fraction in FRACTIONS:
            alphas = [None, *(ALPHAS_AUGMENTED if fraction else (1.0,))]  # without copies their alpha is nothing
            wanted = [alpha for alpha in alphas if (fraction, alpha, seed) not in keys]
            if not wanted:
                continue
            teacher = job.teacher()
            rows, wrong_labels = _rows(job, teacher, fraction, seed, options)
            for alpha in wanted:
                student = build_student(teacher, num_layers=NUM_LAYERS)
                cpu_s = _train(student, job, rows, alpha, seed, options)
                score = job.score(student.eval())
                yield Run(fraction, alpha, seed, len(rows), wrong_labels, score["score"], score["loss"], cpu_s)
                del student
                gc.collect()


def _rows(
    job: Job, teacher: PreTrainedModel, fraction: float, seed: int, options: argparse.Namespace
) -> tuple[datasets.Dataset, float]:
    """Tokenised rows with marks and the teacher's logits, and how many copies have a label that it contradicts."""
    texts, tokenizer = job.texts(), job.tokenizer()
    if fraction:
        data = replace(load_task(Data(task=job.task), job.task), train=texts)
        scheme = Scheme(options.copies, {"embedding_neighbours": 1.0}, fraction, NUM_CANDIDATES, seed)
        texts = augment(data, scheme, teacher, tokenizer, None, None, options.out / "augmented_rows").train
    rows = tokenized(texts, tokenizer)
    logits = predict_logits(teacher, tokenizer, rows, training_arguments(1, 0))
    wrong = 0.0
    if fraction:
        is_wrong = logits.argmax(axis=-1) != np.array(rows["labels"][:])
        wrong = float(is_wrong[np.array(rows[IS_AUGMENTED][:])].mean())
    return rows.add_column(TEACHER_LOGITS, logits.tolist()), wrong


def _train(
    student: PreTrainedModel,
    job: Job,
    rows: datasets.Dataset,
    alpha_augmented: float | None,
    seed: int,
    options: argparse.Namespace,
) -> float:
    set_seed(seed)
    is_control = alpha_augmented is None
    settings: dict[str, Any] = {"train_sampling_strategy": "group_by_length", "bf16": options.bf16}
    with measured() as cost:
        DistillationTrainer(
            model=student,
            args=training_arguments(1, seed, max_steps=options.steps, **settings),
            train_dataset=rows.remove_columns(TEACHER_LOGITS) if is_control else rows,
            processing_class=job.tokenizer(),
            temperature=TEMPERATURE,
            alpha=0.0 if is_control else ALPHA,
            alpha_augmented=1.0 if alpha_augmented is None else alpha_augmented,
            first_position_only=True,
        ).train()
    return cost.cpu_s


def report(out: Path, runs: Sequence[Run], teacher_score: float, task: str) -> None:
    """The table, on the screen and in `augmentation.md`, and the plot."""
    lines = [["teacher", "", "", "", "", f"{100 * teacher_score:.1f}", "", ""]]
    for fraction in FRACTIONS:
        for alpha in (None, *ALPHAS_AUGMENTED) if fraction else (None, 1.0):
            scores = _by_seed(runs, fraction, alpha)
            if not scores:
                continue
            own = [run for run in runs if (run.fraction, run.alpha_augmented) == (fraction, alpha)]
            control, gold = _by_seed(runs, fraction, None), _by_seed(runs, 0.0, 1.0)
            lines.append(
                [
                    "control" if alpha is None else "student",
                    f"{fraction:g}" if fraction else "no copies",
                    f"{alpha:g}" if alpha is not None and fraction else "",
                    f"{100 * np.mean([run.wrong_labels for run in own]):.1f}" if fraction else "",
                    f"{np.mean([run.dev_loss for run in own]):.3f}",
                    _mean(list(scores.values())),
                    "" if alpha is None else _difference(scores, control),
                    "" if alpha is None or not fraction else _difference(scores, gold),
                ]
            )
    header = [
        "",
        "p",
        "alpha of copies",
        "wrong labels (%)",
        "dev loss",
        task,
        "Δ to control",
        "Δ to student, no copies",
    ]
    num_seeds = min(len(_by_seed(runs, run.fraction, run.alpha_augmented)) for run in runs)
    table = f"{markdown_table(header, lines)}\n\nSeeds: {num_seeds}.\n\n{_alpha_table(runs, task)}"
    (out / "augmentation.md").write_text(table + "\n", encoding="utf-8")
    logger.info("%s", table)
    _plot(out, runs, teacher_score, task)


def _alpha_table(runs: Sequence[Run], task: str) -> str:
    """What taking weight off the labels of the copies changes: differences of runs with the same seed and copies."""
    fractions = [fraction for fraction in FRACTIONS if any(run.fraction == fraction > 0 for run in runs)]
    lines = [[f"{fraction:g}, alpha 0", *_against(runs, 0.0, [fraction])] for fraction in fractions]
    lines.append(["mean over p, alpha 0", *_against(runs, 0.0, fractions)])
    lines.append(["mean over p, the control", *_against(runs, None, fractions)])
    names = [f"{what}, alpha {alpha:g}" for what in (f"Δ {task}", "Δ dev loss") for alpha in ALPHAS_AUGMENTED[1:]]
    return markdown_table(["p, and against what", *names], lines)


def _against(runs: Sequence[Run], base: float | None, fractions: Sequence[float]) -> list[str]:
    """Cells of a row: score and loss of the other alphas less those of `base`, for each seed a mean over fractions."""
    cells = []
    for value, decimals in (("dev_score", 1), ("dev_loss", 3)):
        for alpha in ALPHAS_AUGMENTED[1:]:
            pairs = [[_by_seed(runs, p, arm, value) for arm in (alpha, base)] for p in fractions]
            seeds = sorted(set.intersection(*(own.keys() & other.keys() for own, other in pairs)))
            differences = [float(np.mean([own[seed] - other[seed] for own, other in pairs])) for seed in seeds]
            cells.append(_mean(differences, "+", decimals))
    return cells


def _by_seed(runs: Sequence[Run], fraction: float, alpha: float | None, value: str = "dev_score") -> dict[int, float]:
    """Seed to a value; scores are multiplied by 100."""
    factor = 100 if value == "dev_score" else 1
    own = [run for run in runs if (run.fraction, run.alpha_augmented) == (fraction, alpha)]
    return {run.seed: factor * getattr(run, value) for run in own}


def _difference(own: dict[int, float], other: dict[int, float]) -> str:
    """Mean and standard error of the differences of runs with the same seed, in points."""
    return _mean([own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())], "+")


def _mean(values: Sequence[float], sign: str = "", decimals: int = 1) -> str:
    mean, error = mean_and_error(values)
    error_text = f" ± {error:.{decimals}f}" if len(values) > 1 else ""
    return f"{mean:{sign}.{decimals}f}{error_text}" if values else ""


def _plot(out: Path, runs: Sequence[Run], teacher_score: float, task: str) -> None:
    figure, axes = new_figure(1, 2)
    arms = {"control": None, **{f"student, alpha of copies {alpha:g}": alpha for alpha in ALPHAS_AUGMENTED}}
    for axis, value in zip(axes[0], ("dev_score", "dev_loss"), strict=True):
        for number, (name, alpha) in enumerate(arms.items()):
            points = []
            for fraction in FRACTIONS:
                found = _by_seed(runs, fraction, alpha if fraction or alpha is None else 1.0, value)
                if found:
                    points.append((fraction + 0.006 * (number - 1.5), *mean_and_error(list(found.values()))))
            places, means, errors = zip(*points, strict=True)
            axis.errorbar(places, means, yerr=errors, marker="o", capsize=3, label=name)
        axis.set_xlabel("p, the share of words replaced in the copies")
    axes[0][0].axhline(100 * teacher_score, color="0.5", linestyle="--", linewidth=1, label="teacher")
    axes[0][0].set_ylabel(f"{task} dev score")
    axes[0][1].set_ylabel("dev loss, nats (means ± standard errors)")
    axes[0][1].legend(frameon=False, fontsize=8)
    save_figure(figure, out / "augmentation.png")


if __name__ == "__main__":
    main()
