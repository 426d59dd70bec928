"""Training rows that are held out, to choose by: layer maps (`layers`) and hyperparameters (`tune`).

They stand in for the splits which a run reports, so that those choose nothing. Neither the students nor a teacher that
is fine-tuned here learn from them; a teacher that was there already most likely has.
"""

import copy
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
from transformers import TrainerCallback, TrainingArguments, set_seed

from distilbert_kd.augmentation.from_recipe import augmented_of, with_training_rows
from distilbert_kd.data.task_data import TaskData, fingerprint
from distilbert_kd.errors import DataError
from distilbert_kd.metrics import labelled
from distilbert_kd.prepared_arguments import best_epoch, training_arguments
from distilbert_kd.recipe import Recipe
from distilbert_kd.recipe_parts import cache_dir_of, schedule_of, student_of, terms_of
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.scoring import check_teacher_score, labels_of
from distilbert_kd.sharding import take_up
from distilbert_kd.task_rows import Reader
from distilbert_kd.teacher_cache import ask_teacher, logits_column
from distilbert_kd.training import train_model


__all__ = ["HELD_OUT", "School", "hold_out", "open_school"]

logger = logging.getLogger(__name__)

#: What the rows that judge are called.
HELD_OUT = "held-out"


def hold_out(data: TaskData, num_held_out: int, seed: int) -> TaskData:
    """Takes labelled rows out of the training rows; they stand in for the evaluation splits, which are put away.

    Args:
        data: the task.
        num_held_out: how many rows; a quarter of the labelled ones at most.
        seed: of the draw. The same seed and rows give the same draw.

    Returns:
        The task, with the other rows to train on and `HELD_OUT` as the only split that is scored.

    Raises:
        DataError: there are fewer than four labelled training rows.
    """
    with_label = np.flatnonzero(labelled(data.train["label"][:]))
    num_possible = len(with_label) // 4
    if not num_possible:
        raise DataError(
            f"Expected at least 4 labelled training rows, to hold some out, got {len(with_label)} in {data.source}. "
            "Give more rows."
        )
    if num_held_out > num_possible:
        logger.warning("%d rows are held out, a quarter of the labelled ones.", num_possible)
    drawn = np.random.default_rng(seed).permutation(with_label)[: min(num_held_out, num_possible)]
    others = np.setdiff1d(np.arange(len(data.train)), drawn)
    return replace(
        data, train=data.train.select(others), evaluation={HELD_OUT: data.train.select(np.sort(drawn))}, test={}
    )


@dataclass(frozen=True)
class School:
    """What students learn from, and the rows that judge them.

    Attributes:
        teacher: The trained teacher, with the sample of training rows that students learn from.
        origin: What students are cut from, with the same sample; the teacher itself unless a recipe says otherwise.
        metric: Of the task.
        teacher_name: Where the teacher is.
        lessons_sha256: Of the sample's texts and labels, see `distilbert_kd.data.task_data.fingerprint`.
        answers: The teacher's logits for the sample, as a column.
        answers_held_out: Its logits for the rows that judge.
        caveats: What a reader of the findings must know of the teacher.
    """

    teacher: Reader
    origin: Reader
    metric: str
    teacher_name: str
    lessons_sha256: str
    answers: datasets.Dataset
    answers_held_out: datasets.Dataset
    caveats: list[str]

    @property
    def judging(self) -> datasets.Dataset:
        """The rows that judge, as students read them."""
        return self.origin.rows.evaluation[HELD_OUT]

    def distil(
        self,
        what: str,
        recipe: Recipe,
        layers: list[int],
        arguments: TrainingArguments,
        folder: Path,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> Reader:
        """Trains a student as a run of the recipe would, and keeps nothing of it on the disk.

        Args:
            what: is trained, for progress.
            recipe: of the student and its objective.
            layers: that it keeps.
            arguments: of the training.
            folder: in which files may lie for a while.
            callbacks: of the Trainer.

        Returns:
            The student.

        Raises:
            DistillationError: as in `distilbert_kd.training.train_model`.
        """
        set_seed(arguments.seed)
        student = student_of(self.origin, layers, recipe)
        is_asked = recipe.distillation.has_deep_terms
        with tempfile.TemporaryDirectory(prefix=".student-", dir=folder) as nowhere:
            settings = copy.copy(arguments)
            settings.output_dir = nowhere
            train_model(
                what,
                student,
                self.metric,
                settings,
                Path(nowhere) / "student",
                teacher=self.teacher.model if is_asked else None,
                terms=terms_of(recipe) if is_asked else None,
                teacher_logits=None if is_asked else self.answers,
                temperature=schedule_of(recipe.distillation.temperature),
                alpha=schedule_of(recipe.distillation.alpha),
                alpha_augmented=recipe.distillation.alpha_augmented,
                callbacks=callbacks,
            )
        return student


def open_school(
    recipe: Recipe,
    teacher: Reader,
    origin: Reader,
    data: TaskData,
    num_rows: int | None,
    folder: RunFolder,
    prediction: TrainingArguments,
    show_bars: bool,
) -> School:
    """Fine-tunes the teacher if the recipe says so, draws the students' sample, asks the teacher once for each row.

    The sample is augmented if the recipe says so, after it was drawn.

    Args:
        recipe: of the teacher.
        teacher: as it comes; its model is trained, or taken from the folder if it was trained there before.
        origin: what students are cut from; may be `teacher` itself.
        data: the task, with rows held out.
        num_rows: of the sample, before its augmentation; None for all.
        folder: gets the teacher.
        prediction: arguments of predictions.
        show_bars: whether progress bars are drawn.

    Returns:
        All that students need.

    Raises:
        TeacherError: the teacher is near chance on the rows that judge.
        DistillationError: as in training and asking.
    """
    drawn = _draw(len(data.train), num_rows, recipe.seed)
    lessons = replace(data, train=data.train.select(drawn))
    augmented = augmented_of(recipe, lessons, teacher, prediction.device)
    name = _train_teacher(recipe, teacher, data, folder, show_bars)
    sample = _with_rows(teacher, drawn)
    source = sample if origin is teacher else _with_rows(origin, drawn)
    if augmented:  # now that the teacher has learnt from the gold rows alone
        lessons = replace(lessons, train=augmented.train)
        sample, source = with_training_rows(recipe, augmented.train, sample, source)

    def ask(split: str) -> datasets.Dataset:
        return ask_teacher(sample, lessons, split, recipe.data.max_length, prediction, cache_dir_of(recipe))

    answers, answers_held_out = ask("train"), ask(HELD_OUT)
    caveats = check_teacher_score(
        logits_column(answers_held_out),
        labels_of(sample.rows.evaluation[HELD_OUT]),
        data.metric,
        name,
        HELD_OUT,
        recipe.teacher.allow_near_chance,
    )
    return School(sample, source, data.metric, name, fingerprint(lessons.train), answers, answers_held_out, caveats)


def _draw(num_rows: int, num_wanted: int | None, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(num_rows)[:num_wanted])


def _with_rows(reader: Reader, drawn: np.ndarray) -> Reader:
    return replace(reader, rows=replace(reader.rows, train=reader.rows.train.select(drawn)))


def _train_teacher(recipe: Recipe, teacher: Reader, data: TaskData, folder: RunFolder, show_bars: bool) -> str:
    """Fine-tunes the teacher if the recipe says so, and it isn't there yet; says where it is."""
    if recipe.teacher.finetune is None:
        return recipe.teacher.model
    if folder.teacher.is_dir():
        take_up(teacher.model, str(folder.teacher))
        teacher.model.eval()
        logger.info("teacher: taken from %s, where it was trained before", folder.teacher)
        return str(folder.teacher)
    values = {**best_epoch(), **recipe.teacher.finetune}
    with tempfile.TemporaryDirectory(prefix=".checkpoints-", dir=folder.root) as checkpoints:
        arguments = training_arguments(values, "teacher.finetune", Path(checkpoints), recipe.seed, show_bars)
        train_model("teacher", teacher, data.metric, arguments, folder.teacher)
    logger.info("teacher: for further searches: teacher.model=%s teacher.finetune=null", folder.teacher)
    return str(folder.teacher)
