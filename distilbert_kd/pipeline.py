"""A run from recipe to run folder. This module knows the order of the stages, and it alone unpacks the recipe."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel, TrainingArguments, set_seed

from distilbert_kd.data.loading import load_task
from distilbert_kd.data.task_data import TaskData
from distilbert_kd.losses.schedule import Schedule
from distilbert_kd.recipe import Recipe
from distilbert_kd.recipe import Schedule as RecipeSchedule
from distilbert_kd.recipe import Teacher as TeacherRecipe
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.run_records import RunRecords, results_record
from distilbert_kd.scoring import check_teacher_score, describe_models
from distilbert_kd.student.build import build_student, count_layers
from distilbert_kd.student.layer_maps import resolve_layers
from distilbert_kd.task_rows import TaskRows, tokenize_task
from distilbert_kd.teacher import load_base, load_teacher, load_tokenizer
from distilbert_kd.training import Trained, best_epoch, prediction_arguments, train_model, training_arguments


__all__ = ["run"]

logger = logging.getLogger(__name__)

#: What the time of a training is called in the results.
_STAGES = {"teacher": "teacher", "student": "distillation", "control": "control"}


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
    records = RunRecords(folder, PartialState().is_main_process)
    records.create_folder()
    PartialState().wait_for_everyone()

    data = load_task(recipe.data, recipe.name)
    tokenizer = load_tokenizer(recipe.teacher.model, recipe.teacher.revision)
    teacher = _load(recipe.teacher, data.label_names, recipe.seed)
    layers = resolve_layers(count_layers(teacher), recipe.student.num_layers, recipe.student.layers)
    rows = tokenize_task(data, tokenizer, recipe.data.max_length, teacher)
    _log_data(data, rows, recipe.data.max_length)
    main_rows = rows.evaluation[rows.main_split]
    trained: dict[str, Trained] = {}

    def train(what: str, model: PreTrainedModel, settings: TrainingArguments, **distillation: Any) -> None:
        records.write_recipe(recipe.to_yaml())
        place = folder.root / what
        trained[what] = train_model(
            what, model, tokenizer, rows.train, main_rows, data.metric, settings, place, **distillation
        )
        records.write_history({name: each.history for name, each in trained.items()})

    with _saying_what_is_kept(folder, trained):
        if recipe.teacher.finetune is not None:
            train("teacher", teacher, arguments.teacher)
        names = recipe.teacher.model, rows.main_split
        check_teacher_score(
            teacher, tokenizer, main_rows, data.metric, arguments.prediction, *names, recipe.teacher.allow_near_chance
        )
        records.write_environment(data, teacher, recipe.teacher.model, recipe.teacher.revision, recipe.seed)
        models = {"teacher": teacher, "student": build_student(teacher, layers=layers)}
        temperature, alpha = _schedule(recipe.distillation.temperature), _schedule(recipe.distillation.alpha)
        train("student", models["student"], arguments.student, teacher=teacher, temperature=temperature, alpha=alpha)
        if recipe.control:
            models["control"] = build_student(teacher, layers=layers)
            train("control", models["control"], arguments.control)

        logger.info("evaluation: %s on %s", ", ".join(models), ", ".join(rows.evaluation))
        scored, latency_setting = describe_models(
            models, tokenizer, rows.evaluation, data.metric, arguments.prediction
        )
        seconds = {_STAGES[name]: each.seconds for name, each in trained.items()}
        seconds["total"] = time.perf_counter() - start
        results = results_record(
            recipe.name,
            recipe.seed,
            recipe.distillation.model_dump(),
            recipe.teacher.model + (", fine-tuned here" if recipe.teacher.finetune is not None else ""),
            data,
            rows.notes(recipe.data.max_length),
            layers,
            scored,
            latency_setting,
            seconds,
        )
        records.remove_checkpoints(_with_checkpoints(recipe))
        records.write_results(results)
    logger.info("run folder: %s", folder.root)
    PartialState().wait_for_everyone()
    return results


@dataclass(frozen=True)
class _Arguments:
    """Training arguments of the run's models, made first because a wrong one must cost no time."""

    teacher: TrainingArguments
    student: TrainingArguments
    control: TrainingArguments
    prediction: TrainingArguments


def _arguments(recipe: Recipe, folder: RunFolder, show_bars: bool) -> _Arguments:
    def make(values: Mapping[str, Any], where: str, name: str) -> TrainingArguments:
        return training_arguments(values, where, folder.checkpoints / name, recipe.seed, show_bars)

    return _Arguments(
        teacher=make({**best_epoch(), **(recipe.teacher.finetune or {})}, "teacher.finetune", "teacher"),
        student=make(recipe.training, "training", "student"),
        control=make(recipe.training, "training", "control"),
        # Predictions leave nothing there, and a teacher that is refused must leave the folder empty for the next try.
        prediction=prediction_arguments(recipe.training, "training", folder.root, show_bars),
    )


def _load(source: TeacherRecipe, data_labels: tuple[str, ...] | None, seed: int) -> PreTrainedModel:
    """The teacher as it comes, or the model that becomes the teacher, with a new head."""
    set_seed(seed)
    if source.finetune is None:
        return load_teacher(source.model, data_labels, source.revision, source.labels)
    return load_base(source.model, data_labels, source.revision)


def _log_data(data: TaskData, rows: TaskRows, max_length: int) -> None:
    splits = {"train": data.train, **data.evaluation}
    counts = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    logger.info("data: %s from %s: %s rows", data.name, data.source, counts)
    for note in (*data.notes, *rows.notes(max_length)):
        logger.info("data: %s", note)


@contextmanager
def _saying_what_is_kept(folder: RunFolder, trained: Mapping[str, Trained]) -> Iterator[None]:
    """Whatever ends the run, what was trained until then is not lost, and the message says how to go on from it."""
    try:
        yield
    except BaseException as error:
        if "teacher" in trained:
            error.add_note(
                f"The fine-tuned teacher is kept in {folder.teacher}. To go on from it, run the recipe again with "
                f"teacher.model={folder.teacher} teacher.finetune=null output_dir=ANOTHER."
            )
        if "student" in trained:
            error.add_note(f"The distilled student is kept in {folder.student}.")
        raise


def _schedule(value: float | RecipeSchedule) -> float | Schedule:
    return Schedule(value.start, value.end, value.shape) if isinstance(value, RecipeSchedule) else value


def _with_checkpoints(recipe: Recipe) -> list[str]:
    """Models whose section of the recipe asks for checkpoints; without that only the teacher has some, for a while."""
    sections = {"teacher": recipe.teacher.finetune or {}, "student": recipe.training, "control": recipe.training}
    return [name for name, section in sections.items() if section.get("save_strategy", "no") != "no"]
