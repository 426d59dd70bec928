"""What a recipe's `augmentation` says, as rows: here that section is unpacked."""

import logging
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel

from distilbert_kd.augmentation.augmenting import Augmented, augment
from distilbert_kd.augmentation.copies import MASKED_LM, Scheme
from distilbert_kd.augmentation.masked_lm import MaskedLM, load_masked_lm
from distilbert_kd.data.loading import load_rows_to_predict
from distilbert_kd.data.task_data import TaskData
from distilbert_kd.errors import TeacherError
from distilbert_kd.losses.logits import IGNORE_INDEX
from distilbert_kd.recipe import Augmentation, Recipe
from distilbert_kd.recipe_parts import text_columns
from distilbert_kd.scoring import labels_of
from distilbert_kd.task_rows import Reader, tokenize_rows
from distilbert_kd.teacher_cache import DEFAULT_CACHE_DIR


__all__ = ["augmented_of", "transfer_set_of", "with_labels", "with_training_rows"]

logger = logging.getLogger(__name__)

#: The folder of augmented rows, in the one that `teacher.cache_dir` names or beside the teacher's answers.
_FOLDER = "augmented_rows"


def augmented_of(recipe: Recipe, data: TaskData, teacher: Reader, device: torch.device) -> Augmented | None:
    """The training rows of student and control, with what the recipe's `augmentation` adds to them.

    Args:
        recipe: of the run.
        data: its rows.
        teacher: as it comes, before a fine-tuning.
        device: to ask a masked language model on.

    Returns:
        The rows; None without that section.

    Raises:
        TeacherError: the masked language model that the recipe names can't be had, or has no head.
        DataError: the transfer set is not as it should be.
        StorageError: the rows can't be kept.
    """
    section = recipe.augmentation
    if section is None:
        return None
    methods: dict[str, float] = {str(name): weight for name, weight in section.methods.items()}
    scheme = Scheme(section.num_copies, methods, section.fraction, section.num_candidates, recipe.seed)
    masked_lm = _masked_lm_of(recipe, section, device) if MASKED_LM in scheme.methods and scheme.num_copies else None
    root = DEFAULT_CACHE_DIR.parent if recipe.teacher.cache_dir is None else Path(recipe.teacher.cache_dir)
    transfer = transfer_set_of(recipe)
    return augment(data, scheme, teacher.model, teacher.tokenizer, masked_lm, transfer, root / _FOLDER)


def _masked_lm_of(recipe: Recipe, section: Augmentation, device: torch.device) -> MaskedLM | None:
    """The model that is named, or else the teacher's; None, with a line that says so, where that has no head."""
    name, revision = section.masked_lm, None
    if name is None:
        name, revision = recipe.teacher.model, recipe.teacher.revision
    masked_lm = load_masked_lm(name, revision, device)
    if masked_lm is None and section.masked_lm is not None:
        raise TeacherError(
            f"augmentation.masked_lm: expected a masked language model, got {name}, whose checkpoint has no head for "
            "masked tokens: it would be random. Name one that has, or leave the key out: then embedding neighbours "
            "take its place."
        )
    if masked_lm is None:
        logger.warning(
            "augmentation: %s has no head for masked tokens, so words are replaced by their neighbours among its "
            "embeddings. Name a masked language model in augmentation.masked_lm to have masked_lm.",
            name,
        )
    return masked_lm


def transfer_set_of(recipe: Recipe) -> datasets.Dataset | None:
    """The unlabelled texts; of more than are wanted always the same ones, at random.

    Args:
        recipe: of the run.

    Returns:
        `text` and maybe `text_pair`; None where the recipe names none.

    Raises:
        DataError: the file is not as it should be.
    """
    section = recipe.augmentation
    if section is None or section.transfer_set is None:
        return None
    rows = load_rows_to_predict(Path(section.transfer_set), *text_columns(recipe), recipe.data.task)
    most = section.max_transfer_rows
    return rows if most is None or most >= len(rows) else rows.shuffle(seed=0).select(range(most)).flatten_indices()


def with_training_rows(
    recipe: Recipe, rows: datasets.Dataset, teacher: Reader, origin: Reader
) -> tuple[Reader, Reader]:
    """Both readers with other rows to train on.

    Args:
        recipe: of the run.
        rows: as texts.
        teacher: see `readers_of`.
        origin: the same.

    Returns:
        Both; the same object twice where they were.
    """
    max_length = recipe.data.max_length

    def reading(reader: Reader, *models: PreTrainedModel) -> Reader:
        tokenized = tokenize_rows(rows, reader.tokenizer, max_length, reader.model, *models)
        return replace(reader, rows=reader.rows.with_train(tokenized))

    wide = reading(teacher)
    if origin is teacher:
        return wide, wide
    return wide, reading(origin, *([teacher.model] if recipe.asks_teacher_at_each_step else []))


def with_labels(reader: Reader) -> Reader:
    """The control's reader: rows without a label, such as those of a transfer set, have nothing to teach it."""
    rows = reader.rows.train
    labelled = np.flatnonzero(labels_of(rows) != IGNORE_INDEX)
    return (
        reader
        if len(labelled) == len(rows)
        else replace(reader, rows=replace(reader.rows, train=rows.select(labelled)))
    )
