"""What can be done with a run folder alone, on this machine or another: score its models again, and predict."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distilbert_kd.data.loading import load_task
from distilbert_kd.data.task_data import TaskData, fingerprint
from distilbert_kd.errors import DataError, StorageError, TeacherError
from distilbert_kd.prediction import PredictionRequest, predict_file
from distilbert_kd.prepared_arguments import prediction_arguments
from distilbert_kd.recipe import Recipe, load_recipe
from distilbert_kd.recipe_parts import text_columns
from distilbert_kd.run_folder import RunFolder, read_record
from distilbert_kd.scored_rows import read_scored_rows, write_scored_rows
from distilbert_kd.scoring import score_models
from distilbert_kd.task_rows import Reader, tokenize_task
from distilbert_kd.teacher import load_classifier, load_teacher, load_tokenizer
from distilbert_kd.teacher_cache import ask_teacher, logits_column
from distilbert_kd.weights import weights_sha256


__all__ = ["evaluate_run", "predict_with", "teacher_of_run", "text_columns"]

logger = logging.getLogger(__name__)

#: Tokens, for a model that comes without a recipe.
_MAX_LENGTH = 128


def evaluate_run(path: Path, overrides: Sequence[str] = (), show_bars: bool = False) -> dict[str, Any]:
    """Scores the models of a run again, on the splits that its recipe names.

    A run that was made before the scored rows were kept gets them, for its report, if its folder can be written.

    Args:
        path: the run folder.
        overrides: `section.key=value` for this machine, such as where the data or an external teacher lie.
        show_bars: whether progress bars are drawn.

    Returns:
        The run's results with the scores of now; sizes and times are those of the run.

    Raises:
        RecipeError: an override is wrong.
        StorageError: it is no finished run.
        DataError: the rows can't be loaded, or are not the run's.
        TeacherError: a model can't be loaded, or the teacher is not the run's.
    """
    folder = RunFolder.open(path)
    recipe = load_recipe(folder.recipe, overrides)
    results, environment = read_record(folder.results), read_record(folder.environment)
    with _arguments(recipe.training, show_bars) as arguments:
        data = load_task(recipe.data, recipe.name)
        _refuse_other_rows(data, results["metric"], environment["data"]["sha256"], folder)
        teacher, teacher_tokenizer = teacher_of_run(folder, recipe, data.label_names)
        names = [name for name in ("student", "control") if name in results["models"]]
        models = {name: load_classifier(str(folder.root / name)) for name in names}
        tokenizer = load_tokenizer(str(folder.student))
        rows = tokenize_task(data, tokenizer, recipe.data.max_length, models["student"])
        teacher_rows = tokenize_task(data, teacher_tokenizer, recipe.data.max_length, teacher)
        theirs = Reader(teacher, teacher_tokenizer, teacher_rows)
        answers = {
            split: logits_column(ask_teacher(theirs, data, split, recipe.data.max_length, arguments, cache_dir=None))
            for split in data.evaluation
        }
        readers = {name: Reader(model, tokenizer, rows) for name, model in models.items()}
        scored = score_models(readers, answers, data.metric, arguments)
    if PartialState().is_main_process:
        kept = read_scored_rows(folder.scored)
        _write_scored_rows(folder, data, {split: said for split, said in scored.logits.items() if split not in kept})
    for name, record in results["models"].items():
        record["splits"] = {split: result.to_dict() for split, result in scored.results[name].items()}
    return results


def _write_scored_rows(folder: RunFolder, data: TaskData, logits: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    try:
        for split, said in logits.items():
            write_scored_rows(folder.scored, split, data.evaluation[split], said, data.label_names)
    except StorageError as error:
        logger.warning("The scored rows were not kept for the report: %s", error)


def _refuse_other_rows(data: TaskData, metric: str, run_fingerprints: Mapping[str, str], folder: RunFolder) -> None:
    now = {name: fingerprint(rows) for name, rows in data.evaluation.items()}
    expected = {name: value for name, value in run_fingerprints.items() if name != "train"}
    changed = [name for name in sorted({*now, *expected}) if now.get(name) != expected.get(name)]
    if data.metric != metric:
        changed.append("metric")
    if changed:
        raise DataError(
            f"Expected the rows that were scored in {folder.root}, got others from {data.source} (different: "
            f"{', '.join(changed)}). Say where the run's data are, for example data.path=FOLDER or "
            "data.validation=FILE, or run the recipe again."
        )


def teacher_of_run(
    folder: RunFolder, recipe: Recipe, data_labels: tuple[str, ...] | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The teacher that a run's student learnt from, and its tokenizer.

    Args:
        folder: of the run.
        recipe: of the run; overrides may say where the teacher lies on this machine.
        data_labels: names of the classes; None for regression.

    Returns:
        Model and tokenizer.

    Raises:
        StorageError: it was fine-tuned in the run, and is no longer in the folder.
        TeacherError: it can't be loaded, or is another one.
    """
    if folder.teacher.is_dir():
        return load_classifier(str(folder.teacher)), load_tokenizer(str(folder.teacher))
    if recipe.teacher.finetune is not None:
        raise StorageError(
            f"Expected the teacher that was fine-tuned in the run at {folder.teacher}, got nothing. Put the folder "
            "back, or say where it is: teacher.model=FOLDER teacher.finetune=null"
        )
    name, revision = recipe.teacher.model, recipe.teacher.revision
    teacher = load_teacher(name, data_labels, revision, recipe.teacher.labels)
    if weights_sha256(teacher) != read_record(folder.environment)["teacher"]["weights_sha256"]:
        raise TeacherError(
            f"Expected the teacher of the run in {folder.root}, got other weights from {name}. "
            "Say where the run's teacher is: teacher.model=..., teacher.revision=..."
        )
    return teacher, load_tokenizer(name, revision)


def predict_with(
    source: str,
    file: Path,
    output: Path | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    max_length: int | None = None,
    batch_size: int | None = None,
    show_bars: bool = False,
) -> tuple[Path, int]:
    """Predicts a file with the student of a run, or with any classifier.

    Args:
        source: a run folder, a model folder or a Hub id.
        file: the rows.
        output: see `PredictionRequest`.
        text: column of the text; the recipe's for a run with own data, else "text".
        text_pair: column of the second text; the recipe's for a run with own data, "text_pair" for a run of a GLUE
            task with pairs.
        max_length: longer texts are cut; the recipe's for a run, else 128.
        batch_size: rows at a time.
        show_bars: whether progress bars are drawn.

    Returns:
        The file written, and its number of rows.

    Raises:
        DistillationError: the model, the file or the output is not as it should be.
    """
    folder, recipe = _run_of(source)
    location = str(folder.student) if folder else source
    columns = text_columns(recipe)
    values = {} if batch_size is None else {"per_device_eval_batch_size": batch_size}
    model, tokenizer = load_classifier(location), load_tokenizer(location)
    request = PredictionRequest(
        source=file,
        output=output,
        folder=folder.predictions if folder else Path("predictions"),
        task=recipe.data.task if recipe else None,
        text=text or columns[0],
        text_pair=text_pair or columns[1],
        max_length=max_length or (recipe.data.max_length if recipe else _MAX_LENGTH),
    )
    with _arguments(values, show_bars) as arguments:
        return predict_file(model, tokenizer, request, arguments)


def _run_of(source: str) -> tuple[RunFolder, Recipe] | tuple[None, None]:
    """The run and its recipe; nothing for a model."""
    if not RunFolder(Path(source)).recipe.is_file():
        return None, None
    folder = RunFolder.open(Path(source))
    return folder, load_recipe(folder.recipe)


@contextmanager
def _arguments(values: Mapping[str, Any], show_bars: bool) -> Iterator[TrainingArguments]:
    with tempfile.TemporaryDirectory() as output_dir:
        yield prediction_arguments(values, "training", Path(output_dir), show_bars)
