"""How far may rows be sorted by length before the score suffers? And may the embeddings stay frozen?

    GLUE_DIR=... python benchmarks/length_window.py --out build/bench

Students of one teacher, on two data sets, several seeds: batches drawn at random, or sorted by length within windows
of 4, 8, 16 and 50 batches; and with frozen embeddings at one window. All other levers are on. Runs that are in the
results file are not repeated, so that more seeds can be added.
"""

import argparse
import gc
import json
import logging
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from cost import measured, setting_record
from job import ALPHA, TEMPERATURE, Job, prepare, training_arguments
from report import markdown_table, mean_and_error, new_figure, save_figure, write_json
from transformers import PreTrainedModel, set_seed

from distilbert_kd.row_checks import TEACHER_LOGITS
from distilbert_kd.scoring import predict_logits
from distilbert_kd.student.build import build_student, freeze_embeddings
from distilbert_kd.trainer import DistillationTrainer


logger = logging.getLogger(__name__)

NAMES = {"sst2": "SST-2", "cola": "CoLA"}
WINDOWS = (0, 4, 8, 16, 50)
#: The window at which frozen and trained embeddings are compared.
FROZEN_WINDOW = 16
#: What is compared: (name, window in batches with 0 for random batches, embeddings frozen).
SETTINGS = [(f"window {window}" if window else "random", window, False) for window in WINDOWS]
SETTINGS += [(f"window {FROZEN_WINDOW}, frozen", FROZEN_WINDOW, True)]


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        task: Its rows.
        setting: Its name in `SETTINGS`.
        seed: Of order and dropout; the weights at the start are the same in all.
        cpu_s_per_1000: CPU seconds for 1,000 rows.
        dev_score: The task's score on the dev split.
        dev_loss: Cross-entropy to the labels there, in nats.
        held_out_score: The same on rows of the training file that no model saw.
        held_out_loss: Cross-entropy there.
    """

    task: str
    setting: str
    seed: int
    cpu_s_per_1000: float
    dev_score: float
    dev_loss: float
    held_out_score: float
    held_out_loss: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, then writes `length_window.json`, the plot and the table."""
    parser = argparse.ArgumentParser(description="Score and time against the window of sorting by length.")
    parser.add_argument("--out", type=Path, required=True, help="folder for teacher, rows and results")
    parser.add_argument("--tasks", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    datasets.disable_progress_bars()
    torch.set_num_threads(options.threads)
    path = options.out / "length_window.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"settings": {}, "runs": []}
    settings, runs = found["settings"], [Run(**run) for run in found["runs"]]
    for task in options.tasks:
        job = prepare(task, options.rows, options.out)
        settings[task] = {
            **setting_record(options.threads),
            "rows": options.rows,
            "epochs": options.epochs,
            "seeds": options.seeds,
            "teacher_dev": job.teacher_scores,
        }
        for run in _missing_runs(job, runs, options.seeds, options.epochs):
            runs.append(run)
            write_json(path, {"settings": settings, "runs": [asdict(each) for each in runs]})
            logger.info("%s", json.dumps(asdict(run)))
    report(options.out, runs)


def _missing_runs(job: Job, done: Sequence[Run], num_seeds: int, num_epochs: int) -> Iterator[Run]:
    """Yields runs, all settings of a seed before the next seed, so that a change of the machine meets all of them."""
    keys = {(run.task, run.setting, run.seed) for run in done}
    teacher, tokenizer, rows = job.teacher(), job.tokenizer(), job.rows("train")
    logits = predict_logits(teacher, tokenizer, rows, training_arguments(1, 0))
    rows = rows.add_column(TEACHER_LOGITS, logits.tolist())
    for seed in range(num_seeds):
        for setting, window, is_frozen in SETTINGS:
            if (job.task, setting, seed) not in keys:
                student = build_student(teacher, num_layers=3)
                if is_frozen:
                    freeze_embeddings(student)
                cpu_s = _train(student, job, rows, window, seed, num_epochs)
                dev, held_out = job.score(student), job.score(student, "held_out")
                yield Run(
                    task=job.task,
                    setting=setting,
                    seed=seed,
                    cpu_s_per_1000=1000 * cpu_s / (len(rows) * num_epochs),
                    dev_score=dev["score"],
                    dev_loss=dev["loss"],
                    held_out_score=held_out["score"],
                    held_out_loss=held_out["loss"],
                )
                del student
                gc.collect()


def _train(
    student: PreTrainedModel, job: Job, rows: datasets.Dataset, window: int, seed: int, num_epochs: int
) -> float:
    strategy = "group_by_length" if window else "random"
    set_seed(seed)
    with measured() as cost:
        DistillationTrainer(
            model=student,
            args=training_arguments(num_epochs, seed, train_sampling_strategy=strategy),
            train_dataset=rows,
            processing_class=job.tokenizer(),
            temperature=TEMPERATURE,
            alpha=ALPHA,
            length_window=window or 1,
            first_position_only=True,
        ).train()
    return cost.cpu_s


def report(out: Path, runs: Sequence[Run]) -> None:
    """The table, on the screen and in `length_window.md`, and the plot."""
    tasks = list(dict.fromkeys(run.task for run in runs))
    table = "\n\n".join(_table(task, [run for run in runs if run.task == task]) for task in tasks)
    (out / "length_window.md").write_text(table + "\n", encoding="utf-8")
    logger.info("%s", table)
    figure, axes = new_figure(2, len(tasks), share_x=True)
    for column, task in enumerate(tasks):
        of_task = [run for run in runs if run.task == task]
        _plot(axes[0][column], axes[1][column], NAMES[task], of_task)
    save_figure(figure, out / "length_window.png")


def _by_seed(runs: Sequence[Run], setting: str, field: str) -> dict[int, float]:
    return {run.seed: getattr(run, field) for run in runs if run.setting == setting}


def _table(task: str, runs: Sequence[Run]) -> str:
    lines = []
    fields = {"dev_score": 100.0, "held_out_score": 100.0, "dev_loss": 1000.0, "held_out_loss": 1000.0}
    for setting, _, is_frozen in SETTINGS:
        base = f"window {FROZEN_WINDOW}" if is_frozen else "random"
        mean, error = mean_and_error([100 * value for value in _by_seed(runs, setting, "dev_score").values()])
        cells = [setting, str(len(_by_seed(runs, setting, "dev_score"))), f"{mean:.2f} ± {error:.2f}"]
        for field, unit in fields.items():
            values, reference = _by_seed(runs, setting, field), _by_seed(runs, base, field)
            differences = [unit * (values[seed] - reference[seed]) for seed in values.keys() & reference.keys()]
            mean, error = mean_and_error(differences)
            cells.append("" if setting == base else f"{mean:+.2f} ± {error:.2f}")
        cells.append(f"{statistics.median(_by_seed(runs, setting, 'cpu_s_per_1000').values()):.2f}")
        lines.append(cells)
    header = [NAMES[task], "seeds", "dev score", "Δ dev score", "Δ held-out score", "Δ dev loss", "Δ held-out loss"]
    return markdown_table([*header, "CPU s per 1,000 rows"], lines)


def _plot(score_axis: Any, cpu_axis: Any, name: str, runs: Sequence[Run]) -> None:
    labels = [setting.removeprefix("window ").replace(f"{FROZEN_WINDOW}, ", "") for setting, *_ in SETTINGS]
    for field, label, marker in (("dev_score", "dev", "o"), ("held_out_score", "held out", "s")):
        values = [[100 * value for value in _by_seed(runs, setting, field).values()] for setting, *_ in SETTINGS]
        means, errors = zip(*(mean_and_error(each) for each in values), strict=True)
        score_axis.errorbar(range(len(means)), means, errors, marker=marker, capsize=3, linestyle="none", label=label)
        for position, each in enumerate(values):
            score_axis.plot([position] * len(each), each, ".", color="0.7", zorder=0)
    score_axis.set_title(name)
    score_axis.set_ylabel("score (mean ± standard error)")
    score_axis.legend()
    costs = [statistics.median(_by_seed(runs, setting, "cpu_s_per_1000").values()) for setting, *_ in SETTINGS]
    cpu_axis.bar(range(len(costs)), costs, color="0.5")
    cpu_axis.set_ylabel("CPU s per 1,000 rows")
    cpu_axis.set_xticks(range(len(labels)), labels)
    cpu_axis.set_xlabel("window in batches")


if __name__ == "__main__":
    main()
