"""`distilbert-kd tune`: trials of a recipe with other values, judged by training rows that are held out.

The rows that a run reports choose nothing. The teacher is trained and asked once; each trial is a whole training of a
student, from the same start and over the same rows.
"""

import logging
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainingArguments

from distilbert_kd.compatibility import tokenizer_sha256
from distilbert_kd.data.loading import load_task
from distilbert_kd.environment import describe_environment
from distilbert_kd.errors import RecipeError, StorageError
from distilbert_kd.evaluation import evaluate_logits
from distilbert_kd.hardware import describe_device
from distilbert_kd.held_out import HELD_OUT, School, hold_out, open_school
from distilbert_kd.metrics import SCORE_NAMES
from distilbert_kd.prepared_arguments import prediction_arguments
from distilbert_kd.recipe import Recipe
from distilbert_kd.recipe_parts import check_architecture, check_layers, layers_of, log_data, readers_of
from distilbert_kd.resuming import flat_recipe
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.run_lock import lock
from distilbert_kd.run_records import fingerprints
from distilbert_kd.scoring import labels_of
from distilbert_kd.task_rows import Reader
from distilbert_kd.teacher_cache import logits_column, precision_of
from distilbert_kd.tuning.report import write_findings
from distilbert_kd.tuning.space import Choices, Range, Space, value_of, with_values
from distilbert_kd.tuning.study import STUDY, open_study, run_next, take_identity
from distilbert_kd.tuning.trial import trial_arguments, try_out
from distilbert_kd.weights import weights_sha256


__all__ = ["TuningSize", "tune"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuningSize:
    """How much is spent.

    Attributes:
        num_trials: Of the study, over all processes and calls; 0 writes its tables again, and tries nothing.
        num_rows: Training rows that each student learns from; None for all that are not held out.
        num_held_out: Training rows that judge.
        timeout_s: Seconds after which no trial begins; None for no end.
        is_pruning: Whether trials of the worst quarter end early.
    """

    num_trials: int
    num_rows: int | None = None
    num_held_out: int = 500
    timeout_s: float | None = None
    is_pruning: bool = True


def tune(
    recipe: Recipe, size: TuningSize, space: Space, out: Path | None = None, show_bars: bool = False
) -> tuple[str, Path]:
    """Tries values, and writes the recipe with the best ones, a table and pictures. Started again, it goes on.

    Args:
        recipe: that is tuned; a teacher that is yet to be fine-tuned is, on all rows that are not held out.
        size: how much is spent.
        space: what may change, from `distilbert_kd.tuning.space`.
        out: the folder; new, empty, or that of the same tuning. `<output_dir>-tune` by default.
        show_bars: whether progress bars are drawn.

    Returns:
        The table in Markdown, and the folder.

    Raises:
        RecipeError: a value can't be used, or a launcher started several processes.
        StorageError: the folder holds something else, or the trials of another recipe, data, teacher or space.
        DistillationError: as in `distilbert_kd.pipeline.run`.
    """
    end = math.inf if size.timeout_s is None else time.monotonic() + size.timeout_s
    folder = RunFolder(Path(f"{recipe.output_dir}-tune") if out is None else out)
    if size.num_trials == 0:
        return _write_again(recipe, space, size, folder)
    if PartialState().num_processes > 1:
        raise RecipeError(
            f"Expected one process, got {PartialState().num_processes} of a launch. Start the command without "
            "launcher, as many times as there are devices: the processes share the trials of one folder."
        )
    prediction = _checked_arguments(recipe, space, folder, show_bars)
    check_layers(recipe.student, recipe.teacher.model, recipe.teacher.revision)
    logger.info("device: %s", describe_device(prediction))
    data = hold_out(load_task(recipe.data, recipe.name), size.num_held_out, recipe.seed)
    teacher, origin = readers_of(recipe, data)
    fitting = _fitting_layers(space, recipe, teacher, origin)
    check_architecture(teacher, origin, data, recipe)
    log_data(data, origin.rows, recipe.data.max_length)

    asked = _asked(recipe, space, size)
    with ExitStack() as opened:
        with lock(folder.make().lock, is_waiting=True):
            if not (folder.root / STUDY).is_file():
                folder.create()
            study = opened.enter_context(open_study(folder, size.is_pruning))
            models = [tokenizer_sha256(teacher.tokenizer), weights_sha256(teacher.model), weights_sha256(origin.model)]
            precision = precision_of(prediction)
            take_identity(
                study, {"recipe": asked, "data": fingerprints(data), "teacher": models, "precision": precision}, folder
            )
            school = open_school(recipe, teacher, origin, data, size.num_rows, folder, prediction, show_bars)
            if recipe.augmentation is not None:
                take_identity(study, {"augmentation": school.lessons_sha256}, folder)
            study.set_user_attr("about", _about(recipe, school))
        objective = partial(try_out, recipe, school, prediction, folder.root, show_bars)
        own = {key: value_of(recipe, key) for key in fitting}
        while run_next(study, folder, size.num_trials, fitting, own, recipe.seed, objective):
            if time.monotonic() > end:
                logger.info("No further trial begins: %g seconds are over.", size.timeout_s)
                break
        with lock(folder.lock, is_waiting=True):
            return write_findings(folder.root, study, recipe, fitting), folder.root


def _write_again(recipe: Recipe, space: Space, size: TuningSize, folder: RunFolder) -> tuple[str, Path]:
    """The tables of a study that is there."""
    if not (folder.root / STUDY).is_file():
        raise StorageError(
            f"Expected the trials of a tuning in {folder.root}, got none. Give more than 0 --trials, or its folder "
            "with --out."
        )
    with lock(folder.lock, is_waiting=True), open_study(folder) as study:
        take_identity(study, {"recipe": _asked(recipe, space, size)}, folder)
        return write_findings(folder.root, study, recipe, space), folder.root


def _asked(recipe: Recipe, space: Space, size: TuningSize) -> dict[str, Any]:
    """What was asked for, without what changes no score: how many trials, and where they are kept."""
    asked = {**flat_recipe(recipe.to_yaml()), "--rows": size.num_rows, "--held-out": size.num_held_out}
    return {**asked, **{f"--space {key}": values.describe() for key, values in space.items()}}


def _checked_arguments(recipe: Recipe, space: Space, folder: RunFolder, show_bars: bool) -> TrainingArguments:
    """Arguments of predictions; what the Trainer refuses of the recipe or of the space is found here."""
    for key, values in space.items():
        ends = (values.low, values.high) if isinstance(values, Range) else values.values
        for value in ends if key.startswith("training.") else ():
            trial_arguments(with_values(recipe, {key: value}), folder.root, show_bars)
    trial_arguments(recipe, folder.root, show_bars)
    return prediction_arguments(recipe.training, "training", folder.root, show_bars)


def _fitting_layers(space: Space, recipe: Recipe, teacher: Reader, origin: Reader) -> Space:
    """The space with each choice of layers once; all must be as many as the recipe's: a deeper student would win."""
    key = "student.layers"
    choices = space.get(key)
    if not isinstance(choices, Choices):
        return space
    num_layers = len(layers_of(recipe.student, teacher.model, origin.model))
    found: dict[tuple[int, ...], Any] = {}
    for choice in choices.values:
        layers = layers_of(with_values(recipe, {key: choice}).student, teacher.model, origin.model)
        if len(layers) != num_layers:
            raise RecipeError(
                f"--space {key}: expected {num_layers} layers, as many as the recipe's student has, got {choice}. "
                "Tune each depth for itself: student.num_layers=..."
            )
        found.setdefault(tuple(layers), choice)
    return {**space, key: Choices(tuple(found.values()))}


def _about(recipe: Recipe, school: School) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "teacher": school.teacher_name,
        "is_teacher_trained_here": recipe.teacher.finetune is not None,
        "teacher_score": evaluate_logits(
            school.metric, logits_column(school.answers_held_out), labels_of(school.judging)
        ).score,
        "score_name": SCORE_NAMES[school.metric],
        "rows": {"train": len(school.origin.rows.train), HELD_OUT: len(school.judging)},
        "seed": recipe.seed,
        "caveats": school.caveats,
        "environment": describe_environment(),
    }
