"""Predictions for a file of texts: plain CSV or JSON lines, or the form that the GLUE server takes."""

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import datasets
import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distilbert_kd.compatibility import label_names
from distilbert_kd.data.loading import load_rows_to_predict
from distilbert_kd.data.tasks import GlueSplit, GlueTask, get_task
from distilbert_kd.errors import DataError, StorageError
from distilbert_kd.evaluation import softmax
from distilbert_kd.scoring import predict_logits
from distilbert_kd.storage import new_file
from distilbert_kd.task_rows import tokenize_rows


__all__ = ["PredictionRequest", "predict_file", "write_submission"]

logger = logging.getLogger(__name__)

#: STS-B scores are from 0 to 5, and the GLUE server refuses others.
_STSB_RANGE = (0.0, 5.0)


@dataclass(frozen=True)
class PredictionRequest:
    """What to predict, and where to.

    Attributes:
        source: CSV, TSV, JSON lines or parquet file, or a GLUE file.
        output: Where the predictions go; its ending decides the form (.csv, .jsonl). None: beside `source`, or in
            `folder` under the server's name for a GLUE test file.
        folder: For GLUE submissions.
        task: The GLUE task that the model was trained for, if any.
        text: Column of the text.
        text_pair: Column of the second text.
        max_length: Longer texts are cut.
    """

    source: Path
    output: Path | None
    folder: Path
    task: str | None
    text: str
    text_pair: str | None
    max_length: int


def predict_file(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: PredictionRequest,
    arguments: TrainingArguments,
) -> tuple[Path, int]:
    """Predicts each row of a file, in its order.

    Args:
        model: a classifier.
        tokenizer: the model's.
        request: the file, its columns and where the predictions go.
        arguments: batch size, device and precision.

    Returns:
        The file written, and its number of rows.

    Raises:
        DataError: the file can't be read, has no rows or not the columns, or the output's ending is not known.
        StorageError: the output can't be written, or is there already.
    """
    submission = _submission(request)
    output = request.output or (
        request.folder / str(submission.submission_file)
        if submission
        else request.source.with_suffix(".predictions.csv")
    )
    _check_output(output, is_submission=submission is not None)
    rows = load_rows_to_predict(request.source, request.text, request.text_pair, request.task)
    if submission and output.suffix == ".tsv" and len(rows) != submission.num_rows:
        logger.warning(
            "The GLUE server wants %s rows of %s; %s has %s.",
            f"{submission.num_rows:,}",
            submission.file,
            request.source,
            f"{len(rows):,}",
        )
    tokenized = tokenize_rows(rows, tokenizer, request.max_length, model).dataset
    logits = predict_logits(model, tokenizer, tokenized, arguments)
    with new_file(output) as file:
        if submission and request.task and output.suffix == ".tsv":
            write_submission(file, get_task(request.task), rows, logits)
        elif output.suffix == ".jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _plain(model, rows, logits))
        else:
            table = list(_plain(model, rows, logits))
            writer = csv.DictWriter(file, fieldnames=list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    return output, len(rows)


def _submission(request: PredictionRequest) -> GlueSplit | None:
    """The split of the benchmark that a file is by its name."""
    if request.task is None or request.source.suffix.lower() != ".tsv":
        return None
    # AX is predicted by the model of MNLI, so its file counts as one of MNLI's.
    splits = [*get_task(request.task).splits, *(get_task("ax").splits if request.task == "mnli" else ())]
    return next((split for split in splits if split.submission_file and split.stem == request.source.stem), None)


def _check_output(output: Path, is_submission: bool) -> None:
    endings = (".csv", ".jsonl", ".tsv") if is_submission else (".csv", ".jsonl")
    if output.suffix not in endings:
        raise DataError(
            f"Expected predictions to go to a file ending in {' or '.join(endings)}, got {output}. "
            "Choose one with --output; .tsv is the GLUE server's form, for a GLUE test file."
        )
    if output.exists():
        raise StorageError(
            f"Expected a new file for the predictions, got {output}, which is there already. "
            "Choose another with --output, or move it away; nothing is overwritten."
        )


def write_submission(file: IO[str], task: GlueTask, rows: datasets.Dataset, logits: np.ndarray) -> None:
    """Writes `index` and `prediction`, separated by a tab, with the server's words for the labels.

    Args:
        file: open for text.
        task: whose rows they are.
        rows: with `index`, or numbered from 0.
        logits: (B, C) of the rows, classes in the task's order; (B, 1) of STS-B, which is clipped to 0-5.
    """
    indexes: Sequence[int] = rows["index"] if "index" in rows.column_names else range(len(rows))
    if task.submission_labels is None:
        words = [f"{value:.3f}" for value in np.clip(logits.reshape(-1), *_STSB_RANGE)]
    else:
        words = [task.submission_labels[i] for i in logits.argmax(axis=-1)]
    file.write("index\tprediction\n")
    file.writelines(f"{index}\t{word}\n" for index, word in zip(indexes, words, strict=True))


def _plain(model: PreTrainedModel, rows: datasets.Dataset, logits: np.ndarray) -> Iterator[Mapping[str, Any]]:
    """One record a row: its number in a GLUE file, its texts, the prediction, and the probability of each class."""
    columns = [name for name in ("index", "text", "text_pair") if name in rows.column_names]
    names = label_names(model.config)
    probabilities = None if len(names) == 1 else softmax(logits)
    for i, row in enumerate(rows.select_columns(columns)):
        if probabilities is None:
            yield {**row, "prediction": round(float(logits.reshape(-1)[i]), 6)}
            continue
        shares = {f"probability_{name}": round(float(p), 6) for name, p in zip(names, probabilities[i], strict=True)}
        yield {**row, "prediction": names[int(probabilities[i].argmax())], **shares}
