"""`distilbert-kd augment`: what a recipe's augmentation does, before anything trains."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from distilbert_kd.augmentation.description import sample_lines, statistics_lines
from distilbert_kd.augmentation.from_recipe import augmented_of, with_training_rows
from distilbert_kd.data.loading import load_task
from distilbert_kd.data.task_data import IS_AUGMENTED, TaskData
from distilbert_kd.errors import RecipeError
from distilbert_kd.losses.logits import IGNORE_INDEX
from distilbert_kd.plan_lines import render
from distilbert_kd.prepared_arguments import prediction_arguments
from distilbert_kd.recipe import Recipe
from distilbert_kd.recipe_parts import cache_dir_of, readers_of
from distilbert_kd.teacher_cache import ask_teacher, logits_column


__all__ = ["show_augmentation"]


def show_augmentation(recipe: Recipe, num_samples: int, show_bars: bool = False) -> str:
    """Samples and statistics. The rows are kept for the run, as are the teacher's answers if it is there already.

    Args:
        recipe: with a section `augmentation`.
        num_samples: rows that are shown with their copies.
        show_bars: whether progress bars are drawn.

    Returns:
        Lines, to be printed as they are.

    Raises:
        RecipeError: the recipe augments nothing.
        DistillationError: as in `distilbert_kd.pipeline.run`.
    """
    if recipe.augmentation is None:
        raise RecipeError(
            f"Expected a section augmentation in the recipe {recipe.name}, got none. Add one, or try it here: "
            "augmentation.num_copies=2. Its keys are in recipes/README.md."
        )
    place = next(path for path in (Path(recipe.output_dir).absolute().parent, *Path.cwd().parents) if path.is_dir())
    arguments = prediction_arguments(recipe.training, "training", place, show_bars)
    data = load_task(recipe.data, recipe.name)
    teacher, origin = readers_of(recipe, data)
    augmented = augmented_of(recipe, data, teacher, arguments.device)
    assert augmented is not None
    lines = statistics_lines(data.train, augmented)
    differs = "the teacher's class differs" if data.label_names else "the teacher's distance"
    if recipe.teacher.finetune is not None:
        lines[differs] = "not known: the teacher is trained in the run"
    else:
        teacher, _ = with_training_rows(recipe, augmented.train, teacher, origin)
        lessons = replace(data, train=augmented.train)
        answers = ask_teacher(teacher, lessons, "train", recipe.data.max_length, arguments, cache_dir_of(recipe))
        lines[differs] = _difference(logits_column(answers), lessons)
    samples = sample_lines(data.train, augmented, data.label_names, num_samples, recipe.seed)
    legend = "Changed words are in [brackets]; [-] stands for words that were left out."
    return "\n".join([*samples, legend, "", render(lines)]) if samples else render(lines)


def _difference(logits: np.ndarray, data: TaskData) -> str:
    """How far the teacher is from the labels, on gold rows and on their copies."""
    labels = np.asarray(data.train["label"][:])
    is_augmented = np.asarray(data.train[IS_AUGMENTED][:])
    if data.label_names is None:
        apart, shown = np.abs(logits[:, 0] - labels), "{:.3f} on average from the label of {} {}"
    else:
        apart, shown = logits.argmax(axis=-1) != labels, "from the label of {:.1%} of the {} {}"
    has_label = labels != IGNORE_INDEX
    kinds = {"gold rows": has_label & ~is_augmented, "copies": has_label & is_augmented}
    return ", ".join(shown.format(apart[of].mean(), f"{of.sum():,}", name) for name, of in kinds.items() if of.any())
