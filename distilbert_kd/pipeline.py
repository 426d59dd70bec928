"""A run from recipe to run folder. This module knows the order of the stages, and it alone unpacks the recipe."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments, set_seed

from distilbert_kd.data.loading import load_task
from distilbert_kd.data.task_data import TaskData, fingerprint
from distilbert_kd.environment import describe_environment
from distilbert_kd.errors import TeacherError
from distilbert_kd.evaluation import evaluate_logits, is_near_chance
from distilbert_kd.losses.schedule import Schedule
from distilbert_kd.metrics import SCORE_NAMES
from distilbert_kd.recipe import Recipe
from distilbert_kd.recipe import Schedule as RecipeSchedule
from distilbert_kd.results import SCHEMA_VERSION, render_markdown
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.scoring import describe_models, predict_logits, score_models
from distilbert_kd.student.build import build_student, count_layers
from distilbert_kd.student.layer_maps import resolve_layers
from distilbert_kd.task_rows import TaskRows, tokenize_task
from distilbert_kd.teacher import load_base, load_teacher, load_tokenizer
from distilbert_kd.training import Trained, best_epoch, prediction_arguments, train_model, training_arguments
from distilbert_kd.weights import weights_sha256


__all__ = ["run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arguments:
    """Training arguments of the run's models, made first because a wrong one must cost no time."""

    teacher: TrainingArguments
    student: TrainingArguments
    control: TrainingArguments
    prediction: TrainingArguments


def run(recipe: Recipe, show_bars: bool = False) -> dict[str, Any]:
    """Distils: data, teacher, student, control, evaluation, run folder.

    Args:
        recipe: what to do.
        show_bars: whether progress bars are drawn; without them progress is logged in lines.

    Returns:
        The results, as written to `results.json`.

    Raises:
        DistillationError: one of the subclasses in `distilbert_kd.errors`, before the work wherever it can be.
    """
    start = time.perf_counter()
    folder = RunFolder(Path(recipe.output_dir))
    arguments = _arguments(recipe, folder, show_bars)
    is_main = PartialState().is_main_process
    if is_main:
        folder.create()
    PartialState().wait_for_everyone()
    data = load_task(recipe.data, recipe.name)
    _log_data(data)
    tokenizer = load_tokenizer(recipe.teacher.model, recipe.teacher.revision)

    teacher, rows, trained = _teacher(recipe, data, tokenizer, arguments.teacher, folder)
    _refuse_teacher_near_chance(recipe, teacher, tokenizer, rows, data, arguments.prediction)
    layers = resolve_layers(count_layers(teacher), recipe.student.num_layers, recipe.student.layers)

    trained["student"] = _train_student(
        recipe, data, tokenizer, rows, layers, arguments.student, teacher, is_control=False
    )
    if recipe.control:
        trained["control"] = _train_student(
            recipe, data, tokenizer, rows, layers, arguments.control, teacher, is_control=True
        )
    for name in ("student", "control"):
        if name in trained:
            _save(trained[name], folder.root / name)

    models = {"teacher": teacher} | {
        name: trained[name].trainer.model for name in ("student", "control") if name in trained
    }
    results = _results(recipe, data, rows, tokenizer, models, trained, layers, arguments.prediction)
    results["seconds"]["total"] = time.perf_counter() - start
    if is_main:
        _write(folder, recipe, data, teacher, trained, results)
    PartialState().wait_for_everyone()
    return results


def _arguments(recipe: Recipe, folder: RunFolder, show_bars: bool) -> _Arguments:
    finetune = {**(recipe.teacher.finetune or {}), **best_epoch()}

    def make(values: Mapping[str, Any], where: str, name: str) -> TrainingArguments:
        return training_arguments(values, where, folder.checkpoints / name, recipe.seed, show_bars)

    return _Arguments(
        teacher=make(finetune, "teacher.finetune", "teacher"),
        student=make(recipe.training, "training", "student"),
        control=make(recipe.training, "training", "control"),
        prediction=prediction_arguments(recipe.training, "training", folder.checkpoints / "prediction", show_bars),
    )


def _log_data(data: TaskData) -> None:
    splits = {"train": data.train, **data.evaluation}
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in splits.items())
    logger.info("data: %s from %s: %s rows", data.name, data.source, counts)
    for note in data.notes:
        logger.info("data: %s", note)


def _teacher(
    recipe: Recipe,
    data: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    arguments: TrainingArguments,
    folder: RunFolder,
) -> tuple[PreTrainedModel, TaskRows, dict[str, Trained]]:
    """The teacher as it comes, or trained here on the labels, with the standard objective; and the tokenised rows."""
    source = recipe.teacher
    set_seed(recipe.seed)
    if source.finetune is None:
        teacher = load_teacher(source.model, data.label_names, source.revision, source.labels)
    else:
        teacher = load_base(source.model, data.label_names, source.revision)
    count_layers(teacher)  # refuses an architecture that can't be cut, before it is trained
    rows = tokenize_task(data, tokenizer, recipe.data.max_length, teacher)
    if rows.num_truncated:
        logger.info("data: %d texts were cut to %d tokens", rows.num_truncated, recipe.data.max_length)
    if source.finetune is None:
        return teacher.to(arguments.device), rows, {}
    main_rows = rows.evaluation[rows.main_split]
    trained = train_model("teacher", teacher, tokenizer, rows.train, main_rows, data.metric, arguments)
    _save(trained, folder.teacher)
    return trained.trainer.model.eval(), rows, {"teacher": trained}


def _refuse_teacher_near_chance(
    recipe: Recipe,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: TaskRows,
    data: TaskData,
    arguments: TrainingArguments,
) -> None:
    """Shows the teacher's score, and stops where a student could learn nothing from it."""
    split = rows.evaluation[rows.main_split]
    logits = predict_logits(teacher, tokenizer, split, arguments)
    labels = np.asarray(split.with_format("numpy")["labels"][:])
    score = evaluate_logits(data.metric, logits, labels).score
    logger.info("teacher: %s on %s: %.1f", SCORE_NAMES[data.metric], rows.main_split, 100 * score)
    chance = is_near_chance(logits, labels, is_regression=data.label_names is None)
    if not chance.is_near_chance:
        return
    message = (
        f"Expected a teacher that knows the task, got {recipe.teacher.model}, whose outputs correlate with the labels "
        f"of {rows.main_split} by {chance.statistic:.3f}; guessing stays below {chance.bound:.3f} on so many rows. "
    )
    if not recipe.teacher.allow_near_chance:
        raise TeacherError(
            message
            + "Train it longer (teacher.finetune), check that its labels are the data's (teacher.labels), or set "
            "teacher.allow_near_chance=true to go on all the same."
        )
    logger.warning("%sGoing on: teacher.allow_near_chance is set.", message)


def _train_student(
    recipe: Recipe,
    data: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    rows: TaskRows,
    layers: list[int],
    arguments: TrainingArguments,
    teacher: PreTrainedModel,
    is_control: bool,
) -> Trained:
    """The student; or the control: the same start, seed, rows and steps, and the labels alone."""
    objective: dict[str, Any] = {}
    if not is_control:
        objective = {
            "teacher": teacher,
            "temperature": _schedule(recipe.distillation.temperature),
            "alpha": _schedule(recipe.distillation.alpha),
        }
    student = build_student(teacher, layers=layers)
    return train_model(
        "control" if is_control else "student",
        student,
        tokenizer,
        rows.train,
        rows.evaluation[rows.main_split],
        data.metric,
        arguments,
        **objective,
    )


def _schedule(value: float | RecipeSchedule) -> float | Schedule:
    return Schedule(value.start, value.end, value.shape) if isinstance(value, RecipeSchedule) else value


def _save(trained: Trained, folder: Path) -> None:
    """A plain model folder: config, safetensors, tokenizer. The Trainer's own pickle of its arguments is left out."""
    trained.trainer.save_model(str(folder))
    if trained.trainer.is_world_process_zero():
        (folder / "training_args.bin").unlink(missing_ok=True)
    PartialState().wait_for_everyone()


def _results(
    recipe: Recipe,
    data: TaskData,
    rows: TaskRows,
    tokenizer: PreTrainedTokenizerBase,
    models: Mapping[str, PreTrainedModel],
    trained: Mapping[str, Trained],
    layers: list[int],
    arguments: TrainingArguments,
) -> dict[str, Any]:
    logger.info("evaluation: %s on %s", ", ".join(models), ", ".join(rows.evaluation))
    scores = score_models(models, tokenizer, rows.evaluation, data.metric, arguments)
    records, latency_setting = describe_models(models, tokenizer, rows.evaluation[rows.main_split])
    names = {"teacher": recipe.teacher.model, "student": f"{len(layers)} layers, distilled", "control": "labels alone"}
    for name, record in records.items():
        record["name"] = names[name]
        record["splits"] = {split: result.to_dict() for split, result in scores[name].items()}
    seconds = {"distillation" if name == "student" else name: each.seconds for name, each in trained.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": recipe.name,
        "task": data.name,
        "metric": data.metric,
        "score_name": SCORE_NAMES[data.metric],
        "data": {
            "source": data.source,
            "notes": [*data.notes, *rows.notes(recipe.data.max_length)],
            "rows": {name: len(split) for name, split in {"train": data.train, **data.evaluation}.items()},
        },
        "student": {"layers": layers},
        "distillation": recipe.distillation.model_dump(),
        "seed": recipe.seed,
        "models": records,
        "latency_setting": latency_setting,
        "seconds": seconds,
    }


def _write(
    folder: RunFolder,
    recipe: Recipe,
    data: TaskData,
    teacher: PreTrainedModel,
    trained: Mapping[str, Trained],
    results: dict[str, Any],
) -> None:
    """The records of the run; `results.json` last, because its presence says that the run is whole."""
    splits: dict[str, datasets.Dataset] = {"train": data.train, **data.evaluation}
    environment = describe_environment() | {
        "seed": recipe.seed,
        "data": {"source": data.source, "sha256": {name: fingerprint(rows) for name, rows in splits.items()}},
        "teacher": {
            "model": recipe.teacher.model,
            "revision": recipe.teacher.revision,
            "commit": getattr(teacher.config, "_commit_hash", None),
            "weights_sha256": weights_sha256(teacher),
        },
    }
    folder.recipe.write_text(recipe.to_yaml(), encoding="utf-8")
    _write_json(folder.environment, environment)
    _write_json(folder.history, {name: each.history for name, each in trained.items()})
    folder.results_table.write_text(render_markdown(results), encoding="utf-8")
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    _write_json(folder.results, results)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
