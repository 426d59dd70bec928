"""`distilbert-kd layers`: the search of `layer_search` for the teacher and the rows of a recipe.

Training rows are held out to judge the maps (see `held_out`). Importance is measured on the students' own sample, so
that no map was chosen on the rows that rank it.
"""

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from accelerate import PartialState
from transformers import PreTrainedModel, TrainingArguments

from distilbert_kd.data.loading import load_task
from distilbert_kd.environment import describe_environment
from distilbert_kd.errors import RecipeError
from distilbert_kd.evaluation import evaluate_logits
from distilbert_kd.hardware import describe_device
from distilbert_kd.held_out import HELD_OUT, hold_out, open_school
from distilbert_kd.layer_importance import measure_on
from distilbert_kd.layer_search import LayerSearch, search_layers
from distilbert_kd.layer_search_report import write_report
from distilbert_kd.metrics import SCORE_NAMES, is_regression_metric, labelled
from distilbert_kd.plan_lines import num_training_steps
from distilbert_kd.prepared_arguments import prediction_arguments, training_arguments
from distilbert_kd.processes import failing_together
from distilbert_kd.recipe import Recipe
from distilbert_kd.recipe_parts import check_architecture, check_layers, layers_of, log_data, readers_of
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.scoring import labels_of
from distilbert_kd.storage import write_text
from distilbert_kd.teacher_cache import logits_column


__all__ = ["SearchSize", "run_layer_search"]

logger = logging.getLogger(__name__)

#: The share of a short distillation that replaces a warm-up given in steps.
_WARMUP = 0.1

#: Of a distillation that says anything; with a warm-up the first steps move nothing.
_MIN_STEPS = 4


@dataclass(frozen=True)
class SearchSize:
    """How much is spent.

    Attributes:
        num_rows: Training rows that each short distillation learns from.
        num_held_out: Training rows that judge; importance is measured on as many of the sample.
        num_epochs: Of each distillation.
        num_seeds: Distillations of each map.
        is_backward_wanted: Whether layers are also eliminated one by one.
    """

    num_rows: int = 1000
    num_held_out: int = 500
    num_epochs: float = 1.0
    num_seeds: int = 1
    is_backward_wanted: bool = True


def run_layer_search(
    recipe: Recipe, size: SearchSize, out: Path | None = None, show_bars: bool = False
) -> tuple[str, Path]:
    """Searches, and writes a table, a picture and all numbers.

    Args:
        recipe: whose teacher is cut; a teacher that is yet to be fine-tuned is, on all rows that are not held out.
        size: how much is spent.
        out: the folder to write; must be new or empty. `<output_dir>-layers` by default, beside the run folder, which
            must stay empty for the run.
        show_bars: whether progress bars are drawn.

    Returns:
        The report in Markdown, and the folder.

    Raises:
        RecipeError: the student is to be cut from another model than the teacher, or a setting can't be used.
        DataError: too few labelled rows to hold some out.
        DistillationError: as in `distilbert_kd.pipeline.run`.
    """
    if recipe.student.init_from is not None:
        raise RecipeError(
            f"student.init_from: expected none, because the search cuts the teacher; got "
            f"{recipe.student.init_from!r}. Add student.init_from=null, or compare the maps of that model by runs."
        )
    start = time.perf_counter()
    folder = RunFolder(Path(f"{recipe.output_dir}-layers") if out is None else out)
    seeds = [recipe.seed + i for i in range(size.num_seeds)]
    distillations = {seed: _distillation_arguments(recipe, size, folder, seed, show_bars) for seed in seeds}
    prediction = prediction_arguments(recipe.training, "training", folder.root, show_bars)
    check_layers(recipe.student, recipe.teacher.model, recipe.teacher.revision)
    is_main = PartialState().is_main_process
    with failing_together():
        if is_main:
            folder.create()
    logger.info("device: %s", describe_device(prediction))

    data = hold_out(load_task(recipe.data, recipe.name), size.num_held_out, recipe.seed)
    num_steps = num_training_steps(distillations[seeds[0]], min(size.num_rows, len(data.train)))
    if num_steps < _MIN_STEPS:
        raise RecipeError(
            f"Expected short distillations of at least {_MIN_STEPS} steps, got {num_steps}: after so few the maps "
            "stand where they started. Give more --rows or --epochs, or a smaller "
            "training.per_device_train_batch_size."
        )
    teacher, _ = readers_of(recipe, data)
    num_layers = len(layers_of(recipe.student, teacher.model, teacher.model))
    check_architecture(teacher, teacher, data, recipe)
    log_data(data, teacher.rows, recipe.data.max_length)
    school = open_school(recipe, teacher, teacher, data, size.num_rows, folder, prediction, show_bars)
    sample, judging, metric = school.teacher, school.judging, school.metric
    choosing = np.flatnonzero(labelled(labels_of(sample.rows.train)))[: len(judging)]
    choosing_rows, choosing_answers = sample.rows.train.select(choosing), school.answers.select(choosing)

    def distil(layers: list[int], seed: int) -> PreTrainedModel:
        what = "-".join(map(str, layers))
        return school.distil(what, recipe, layers, distillations[seed], folder.root).model

    search = search_layers(
        teacher.model,
        num_layers,
        measure_on(choosing_rows, choosing_answers, sample.tokenizer, metric, prediction),
        measure_on(judging, school.answers_held_out, sample.tokenizer, metric, prediction),
        distil,
        seeds,
        {"recipe": recipe.student.layers} if isinstance(recipe.student.layers, list) else None,
        size.is_backward_wanted,
    )
    about = {
        "name": recipe.name,
        "teacher": school.teacher_name,
        "is_teacher_trained_here": recipe.teacher.finetune is not None,
        "teacher_score": _score_of(school.answers_held_out, judging, metric),
        "importance_score": _score_of(choosing_answers, choosing_rows, metric),
        "score_name": SCORE_NAMES[metric],
        "is_regression": is_regression_metric(metric),
        "rows": {"sample": len(sample.rows.train), "importance": len(choosing), HELD_OUT: len(judging)},
        "num_epochs": size.num_epochs,
        "num_steps": num_training_steps(distillations[seeds[0]], len(sample.rows.train)),  # augmented rows are more
        "seeds": seeds,
        "seconds": round(time.perf_counter() - start, 1),
        "caveats": school.caveats,
        "environment": describe_environment(),
    }
    if not is_main:
        return "", folder.root
    return _write(folder, recipe, search, about), folder.root


def _distillation_arguments(
    recipe: Recipe, size: SearchSize, folder: RunFolder, seed: int, show_bars: bool
) -> TrainingArguments:
    """The recipe's own, cut short: nothing is scored on the way, kept, tracked or pushed."""
    short = {
        "num_train_epochs": size.num_epochs,
        "max_steps": -1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "push_to_hub": False,
        "report_to": "none",
        "logging_steps": 0.5,
    }
    if recipe.training.get("warmup_steps", 0) >= 1:  # of the whole training; a short one would be nothing else
        short["warmup_steps"] = _WARMUP
        logger.info("warm-up: %.0f %% of a short distillation, in place of training.warmup_steps", 100 * _WARMUP)
    return training_arguments({**recipe.training, **short}, "training", folder.root, seed, show_bars)


def _score_of(answers: datasets.Dataset, rows: datasets.Dataset, metric: str) -> float:
    return evaluate_logits(metric, logits_column(answers), labels_of(rows)).score


def _write(folder: RunFolder, recipe: Recipe, search: LayerSearch, about: dict[str, Any]) -> str:
    write_text(folder.recipe, recipe.to_yaml())
    return write_report(folder.root, {**about, **asdict(search)})
