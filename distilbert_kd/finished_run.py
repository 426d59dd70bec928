"""What can be done with a run folder alone, on this machine or another: score its models again, and predict."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainingArguments

from distilbert_kd.data.loading import load_task
from distilbert_kd.errors import DataError
from distilbert_kd.prediction import PredictionRequest, predict_file
from distilbert_kd.recipe import Recipe, load_recipe
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.scoring import score_models
from distilbert_kd.task_rows import tokenize_task
from distilbert_kd.teacher import load_classifier, load_teacher, load_tokenizer
from distilbert_kd.training import prediction_arguments


__all__ = ["evaluate_run", "predict_with"]


def evaluate_run(path: Path, show_bars: bool = False) -> dict[str, Any]:
    """Scores the models of a run again, on the splits that its recipe names.

    Args:
        path: the run folder.
        show_bars: whether progress bars are drawn.

    Returns:
        The run's results with the scores of now; sizes and times are those of the run.

    Raises:
        StorageError: it is no finished run.
        DataError: the rows can't be loaded, or are not the run's.
        TeacherError: a model can't be loaded.
    """
    folder = RunFolder.open(path)
    recipe = load_recipe(folder.recipe)
    results = json.loads(folder.results.read_text(encoding="utf-8"))
    data = load_task(recipe.data, recipe.name)
    if data.metric != results["metric"]:
        raise DataError(
            f"Expected the run's metric {results['metric']}, got {data.metric}. Check data in {folder.recipe}."
        )
    models = {"teacher": _teacher(folder, recipe, data.label_names)}
    for name in ("student", "control"):
        if name in results["models"]:
            models[name] = load_classifier(str(folder.root / name))
    tokenizer = load_tokenizer(str(folder.student))
    rows = tokenize_task(data, tokenizer, recipe.data.max_length, models["student"])
    with _arguments(recipe.training, show_bars) as arguments:
        scores = score_models(models, tokenizer, rows.evaluation, data.metric, arguments)
    for name, record in results["models"].items():
        record["splits"] = {split: result.to_dict() for split, result in scores[name].items()}
    return results


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
        text: column of the text; the recipe's for a run, else "text".
        text_pair: column of the second text; the recipe's for a run.
        max_length: longer texts are cut; the recipe's for a run, else 128.
        batch_size: rows at a time.
        show_bars: whether progress bars are drawn.

    Returns:
        The file written, and its number of rows.

    Raises:
        DistillationError: the model, the file or the output is not as it should be.
    """
    is_run = RunFolder(Path(source)).recipe.is_file()
    folder = RunFolder.open(Path(source)) if is_run else None
    recipe = load_recipe(folder.recipe) if folder else None
    location = str(folder.student) if folder else source
    model, tokenizer = load_classifier(location), load_tokenizer(location)
    request = PredictionRequest(
        source=file,
        output=output,
        folder=folder.predictions if folder else Path("predictions"),
        task=recipe.data.task if recipe else None,
        text=text or (recipe and recipe.data.text) or "text",
        text_pair=text_pair or (recipe.data.text_pair if recipe else None),
        max_length=max_length or (recipe.data.max_length if recipe else 128),
    )
    values = {} if batch_size is None else {"per_device_eval_batch_size": batch_size}
    with _arguments(values, show_bars) as arguments:
        return predict_file(model, tokenizer, request, arguments)


def _teacher(folder: RunFolder, recipe: Recipe, data_labels: tuple[str, ...] | None) -> PreTrainedModel:
    if folder.teacher.is_dir():
        return load_classifier(str(folder.teacher))
    return load_teacher(recipe.teacher.model, data_labels, recipe.teacher.revision, recipe.teacher.labels)


@contextmanager
def _arguments(values: Mapping[str, Any], show_bars: bool) -> Iterator[TrainingArguments]:
    with tempfile.TemporaryDirectory() as output_dir:
        yield prediction_arguments(values, "training", Path(output_dir), show_bars)
