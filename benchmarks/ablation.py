"""The ablation of the DistilBERT paper in small: what does each part of the objective, and of the start, bring?

    GLUE_DIR=... OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python benchmarks/ablation.py --out build/bench \
        --general runs/small/student

One teacher for each task, fine-tuned on the same rows as the students; these have half its layers, and all seeds of
all arms the same rows. Seeds are the outer loop, tasks the next, so that a run that is cut short has compared the same
arms. Runs that are in the results file are not repeated. The arms of the general stage are left out without
`--general`.
"""

import argparse
import gc
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from cost import measured, setting_record
from job import ALPHA, TEMPERATURE, Job, prepare, training_arguments
from report import markdown_table, mean_and_error, new_figure, save_figure, write_json
from transformers import AutoModel, PreTrainedModel, TrainingArguments, set_seed

from distilbert_kd.row_checks import TEACHER_LOGITS
from distilbert_kd.scoring import predict_logits
from distilbert_kd.student.build import build_student
from distilbert_kd.teacher import load_base
from distilbert_kd.trainer import DistillationTrainer
from distilbert_kd.weights import weights_sha256


logger = logging.getLogger(__name__)

#: Epochs of the students for each task.
TASKS = {"sst2": 2, "mrpc": 3, "rte": 3}
TASK_NAMES = {"sst2": "SST-2", "mrpc": "MRPC", "rte": "RTE"}
NUM_LAYERS = 3
RELATIONS = dict.fromkeys(("query_relation", "key_relation", "value_relation"), 1.0)


@dataclass(frozen=True)
class Arm:
    """One way to distil; the defaults are the toolkit's.

    Attributes:
        start: "teacher" for alternate layers of it, "random", or "general" for the general stage's student.
        alpha: Weight of the soft targets.
        terms: Deeper terms.
    """

    start: str = "teacher"
    alpha: float = ALPHA
    terms: dict[str, float] = field(default_factory=dict)


ARMS = {
    "soft targets": Arm(),
    "no soft targets (the control)": Arm(alpha=0.0),
    "random start": Arm(start="random"),
    "+ hidden cosine": Arm(terms={"hidden_cosine": 1.0}),
    "+ relations": Arm(terms=RELATIONS),
    "general stage first": Arm(start="general"),
}
BASE = "soft targets"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        task: Its rows.
        arm: Its name in `ARMS`.
        seed: Of order, dropout and random weights.
        dev_score: The task's score on the dev split.
        dev_loss: Cross-entropy to the labels there, in nats.
        cpu_s: CPU seconds of the training.
    """

    task: str
    arm: str
    seed: int
    dev_score: float
    dev_loss: float
    cpu_s: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, then writes `ablation.json`, the plot and the table."""
    parser = argparse.ArgumentParser(description="Scores of students with and without each part.")
    parser.add_argument("--out", type=Path, required=True, help="folder for teachers, rows and results")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--general", type=Path, help="student folder of a general stage (distilbert-kd pretrain)")
    parser.add_argument("--rows", type=int, default=10_000, help="at most, of each task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="students train under autocast to bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    datasets.disable_progress_bars()
    torch.set_num_threads(options.threads)
    path = options.out / "ablation.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": []}
    softness = found.get("softness", {})
    runs = [Run(**run) for run in found["runs"]]
    jobs = [prepare(task, options.rows, options.out, options.rows) for task in options.tasks]
    setting = {
        **setting_record(options.threads),
        "bf16": options.bf16,
        "general": options.general and weights_sha256(AutoModel.from_pretrained(options.general)),
        "arms": {name: asdict(arm) for name, arm in ARMS.items()},
        "tasks": {
            job.task: {
                "epochs": TASKS[job.task],
                "rows": len(job.rows("train")),
                "teacher_dev": job.teacher_scores,
            }
            for job in jobs
        },
    }
    if runs:
        refuse_other_setting(path, found["setting"], setting)
    softness |= {job.task: teacher_softness(job) for job in jobs if job.task not in softness}

    def write() -> None:
        write_json(path, {"setting": setting, "softness": softness, "runs": [asdict(each) for each in runs]})

    write()
    for run in _missing_runs(jobs, runs, options):
        runs.append(run)
        write()
        logger.info("%s", json.dumps(asdict(run)))
    report(options.out, runs, {task: of_task["teacher_dev"] for task, of_task in setting["tasks"].items()}, softness)


def teacher_softness(job: Job) -> dict[str, dict[str, float]]:
    """How much the teacher says on the rows that students learn from, and on those that it has not seen.

    Args:
        job: its teacher and rows.

    Returns:
        For "train" and "dev": accuracy, 0 to 1, and the mean entropy of its distribution at T = 1 and at the T of the
        students, as shares of log C.
    """
    teacher, of_splits = job.teacher(), {}
    for split in ("train", "dev"):
        rows = job.rows(split)
        logits = torch.tensor(predict_logits(teacher, job.tokenizer(), rows, training_arguments(1, 0)))
        right = (logits.argmax(-1) == torch.tensor(rows["labels"][:])).float().mean()
        of_splits[split] = {"accuracy": float(right)} | {
            f"entropy_at_{temperature:g}": float(
                torch.distributions.Categorical(logits=logits / temperature).entropy().mean()
                / math.log(logits.shape[-1])
            )
            for temperature in (1.0, TEMPERATURE)
        }
    return of_splits


def refuse_other_setting(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Ends the program if the runs of a results file were made otherwise, so that no table mixes them.

    Args:
        path: of the file.
        before: its setting.
        now: that of this call. Machine, load, date and commit may differ.
    """
    changed = [name for name in ("bf16", "general", "arms", "versions") if before.get(name) != now[name]]
    tasks = before["tasks"]
    changed += [f"tasks.{task}" for task, of_task in now["tasks"].items() if tasks.get(task, of_task) != of_task]
    if changed:
        raise SystemExit(f"{path} holds runs of another setting ({', '.join(changed)}). Choose another --out.")
    now["tasks"] = {**tasks, **now["tasks"]}


def _missing_runs(jobs: Sequence[Job], done: Sequence[Run], options: argparse.Namespace) -> Iterator[Run]:
    keys = {(run.task, run.arm, run.seed) for run in done}
    arms = {name: arm for name, arm in ARMS.items() if arm.start != "general" or options.general is not None}
    for seed in range(options.seeds):
        for job in jobs:
            wanted = {name: arm for name, arm in arms.items() if (job.task, name, seed) not in keys}
            if not wanted:
                continue
            teacher, rows = job.teacher(), job.rows("train")
            logits = predict_logits(teacher, job.tokenizer(), rows, training_arguments(1, 0))
            with_logits = rows.add_column(TEACHER_LOGITS, logits.tolist())
            for name, arm in wanted.items():
                set_seed(seed)
                student = _student(arm, teacher, options.general)
                arguments = _arguments(job, seed, options.bf16)
                cpu_s = _train(student, arm, teacher, job, rows if arm.terms else with_logits, arguments)
                score = job.score(student.eval())
                yield Run(job.task, name, seed, score["score"], score["loss"], cpu_s)
                del student
                gc.collect()


def _student(arm: Arm, teacher: PreTrainedModel, general: Path | None) -> PreTrainedModel:
    if arm.start == "general":
        return load_base(str(general), list(teacher.config.id2label.values()))
    student = build_student(teacher, num_layers=NUM_LAYERS)
    return type(student)(student.config) if arm.start == "random" else student


def _arguments(job: Job, seed: int, bf16: bool) -> TrainingArguments:
    return training_arguments(TASKS[job.task], seed, train_sampling_strategy="group_by_length", bf16=bf16)


def _train(
    student: PreTrainedModel,
    arm: Arm,
    teacher: PreTrainedModel,
    job: Job,
    rows: datasets.Dataset,
    arguments: TrainingArguments,
) -> float:
    with measured() as cost:
        DistillationTrainer(
            model=student,
            args=arguments,
            train_dataset=rows if arm.alpha > 0 else rows.remove_columns(TEACHER_LOGITS),
            processing_class=job.tokenizer(),
            teacher=teacher if arm.terms else None,
            temperature=TEMPERATURE,
            alpha=arm.alpha,
            terms=arm.terms,
            first_position_only=True,
        ).train()
    return cost.cpu_s


def report(
    out: Path,
    runs: Sequence[Run],
    teacher_dev: dict[str, dict[str, float]],
    softness: dict[str, dict[str, dict[str, float]]],
) -> None:
    """The tables, of scores, of losses and of the teachers, on the screen and in `ablation.md`, and the plot."""
    tasks = [task for task in TASKS if any(run.task == task for run in runs)]
    names = [TASK_NAMES[task] for task in tasks]
    scores = [["teacher (6 layers)", *(f"{100 * teacher_dev[task]['score']:.1f}" for task in tasks), "", ""]]
    losses = [["teacher (6 layers)", *(f"{teacher_dev[task]['loss']:.3f}" for task in tasks)]]
    for arm in (arm for arm in ARMS if any(run.arm == arm for run in runs)):
        of_arm = [[run for run in runs if (run.task, run.arm) == (task, arm)] for task in tasks]
        cells = [_mean([100 * run.dev_score for run in of_task]) for of_task in of_arm]
        difference = "" if arm == BASE else _mean(_paired(runs, tasks, arm), "+")
        scores.append([arm, *cells, difference, str(min(map(len, of_arm)))])
        losses.append([arm, *(_mean([run.dev_loss for run in of_task], digits=3) for of_task in of_arm)])
    text = "\n\n".join(
        [
            markdown_table(["dev score", *names, f"Δ to {BASE}", "seeds"], scores),
            markdown_table(["dev loss, nats", *names], losses),
            markdown_table(["teacher", *names], _softness_lines(softness, tasks)),
        ]
    )
    (out / "ablation.md").write_text(text + "\n", encoding="utf-8")
    logger.info("%s", text)
    _plot(out, runs, tasks, teacher_dev)


def _softness_lines(softness: dict[str, dict[str, dict[str, float]]], tasks: Sequence[str]) -> list[list[str]]:
    return [
        [f"{what}, {rows} rows", *(f"{100 * softness[task][split][key]:.1f} %" for task in tasks)]
        for key, what in (
            ("accuracy", "accuracy"),
            ("entropy_at_1", "entropy / log C at T = 1"),
            (f"entropy_at_{TEMPERATURE:g}", f"entropy / log C at T = {TEMPERATURE:g}"),
        )
        for split, rows in (("train", "the students'"), ("dev", "dev"))
    ]


def _paired(runs: Sequence[Run], tasks: Sequence[str], arm: str) -> list[float]:
    """For each seed the mean over the tasks of the difference to the base with the same seed, in points."""
    by_task = [(_by_seed(runs, task, arm), _by_seed(runs, task, BASE)) for task in tasks]
    seeds = sorted(set.intersection(*({*own} & {*base} for own, base in by_task)))
    return [sum(100 * (own[seed] - base[seed]) for own, base in by_task) / len(tasks) for seed in seeds]


def _by_seed(runs: Sequence[Run], task: str, arm: str) -> dict[int, float]:
    return {run.seed: run.dev_score for run in runs if (run.task, run.arm) == (task, arm)}


def _mean(values: Sequence[float], sign: str = "", digits: int = 1) -> str:
    mean, error = mean_and_error(values)
    if len(values) < 2:
        return f"{mean:{sign}.{digits}f}" if values else ""
    return f"{mean:{sign}.{digits}f} ± {error:.{digits}f}"


def _plot(out: Path, runs: Sequence[Run], tasks: Sequence[str], teacher_dev: dict[str, dict[str, float]]) -> None:
    figure, axes = new_figure(1, len(tasks))
    arms = [arm for arm in reversed(ARMS) if any(run.arm == arm for run in runs)]
    for axis, task in zip(axes[0], tasks, strict=True):
        for position, arm in enumerate(arms):
            scores = [100 * score for score in _by_seed(runs, task, arm).values()]
            mean, error = mean_and_error(scores)
            axis.plot(scores, [position] * len(scores), ".", color="0.7", zorder=0)
            axis.errorbar([mean], [position], xerr=[error], fmt="o", color="tab:blue", capsize=3)
        axis.axvline(100 * teacher_dev[task]["score"], color="0.5", linestyle="--", linewidth=1)
        axis.set_title(f"{TASK_NAMES[task]} (dashed: teacher)")
        axis.set_xlabel("dev score (mean ± standard error)")
        axis.set_yticks(range(len(arms)), arms if axis is axes[0][0] else [""] * len(arms))
    save_figure(figure, out / "ablation.png")


if __name__ == "__main__":
    main()
