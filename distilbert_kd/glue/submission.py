"""`submission.zip` as the GLUE server takes it: test rows predicted by the students, all eleven files.

The server takes whole submissions only. A file for which there is no student, or no test rows, is filled with one
answer, so that the others can be scored, and is named wherever the submission is.
"""

import logging
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distilbert_kd.data.tasks import AX, TASKS, GlueSplit, GlueTask, get_task
from distilbert_kd.errors import DataError
from distilbert_kd.glue.submission_check import validate_submission
from distilbert_kd.prediction import write_submission
from distilbert_kd.processes import failing_together
from distilbert_kd.scoring import predict_logits
from distilbert_kd.storage import new_file, storage_errors
from distilbert_kd.task_rows import tokenize_rows


__all__ = ["SubmittedFile", "predict_test_rows", "write_submission_zip"]

logger = logging.getLogger(__name__)

#: The more frequent label of the training rows, and STS-B's mean; the first one where they are as good as even.
_ANSWERS = {
    "cola": "1",
    "sst2": "1",
    "mrpc": "1",
    "stsb": "2.701",
    "qqp": "0",
    "mnli": "entailment",
    "qnli": "entailment",
    "rte": "entailment",
    "wnli": "0",
    "ax": "entailment",
}


@dataclass(frozen=True)
class SubmittedFile:
    """One file of a submission.

    Attributes:
        task: Whose rows they are.
        run: Task and seed of the student that predicted them, as its folder is called; None for a filled file.
        answer: What stands in every row of a file that is filled.
        reason: Why it is filled.
    """

    task: str
    run: str | None = None
    answer: str | None = None
    reason: str | None = None


def predict_test_rows(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str,
    test: Mapping[str, datasets.Dataset],
    max_length: int,
    arguments: TrainingArguments,
    folder: Path,
) -> None:
    """Writes the server's files of one task; those that are there already are left. Every process calls this.

    Args:
        student: of the task; that of MNLI predicts AX, too.
        tokenizer: the student's.
        task: its name.
        test: split name to rows, as `load_task` gives them; splits that are missing are left out.
        max_length: longer texts are cut.
        arguments: batch size, device and precision.
        folder: where to.

    Raises:
        DataError: a text is longer than the model has positions for.
        StorageError: a file can't be written.
    """
    for owner, split in _files_of(task):
        path = folder / str(split.submission_file)
        if split.name not in test or path.is_file():
            continue
        rows = test[split.name]
        logger.info("%s: %d test rows", split.submission_file, len(rows))
        tokenized = tokenize_rows(rows, tokenizer, max_length, student).dataset
        logits = predict_logits(student, tokenizer, tokenized, arguments)
        with failing_together():
            if PartialState().is_main_process:
                with new_file(path) as file:
                    write_submission(file, owner, rows, logits)


def write_submission_zip(path: Path, predictions: Mapping[str, Path]) -> dict[str, SubmittedFile]:
    """Puts the files together, in place of a submission that is there, and checks it before it gets its name.

    Args:
        path: of the zip.
        predictions: task to the folder of `predict_test_rows`, a run's `predictions`; of the tasks that have one.

    Returns:
        File name to where it is from.

    Raises:
        DataError: the server would refuse it.
        StorageError: it can't be written.
    """
    described = {}
    partial = path.with_name(f".{path.name}.partial")
    with storage_errors(path):
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
                for task in (name for name in TASKS if name != AX.name):
                    for owner, split in _files_of(task):
                        name = str(split.submission_file)
                        described[name], text = _content(owner, split, predictions.get(task))
                        # A date of its own would make another file of the same answers.
                        archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
            faults = validate_submission(partial)
            if faults:
                raise DataError(
                    f"Expected a submission that the GLUE server takes in {path}, got:\n"
                    + "\n".join(f"  - {fault}" for fault in faults)
                    + "\nRemove the file of this name from the run's predictions, and start the same command again."
                )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    for name, each in described.items():
        if each.run is None:
            logger.warning("%s is NOT predicted: every row says %s, because %s.", name, each.answer, each.reason)
    return described


def _files_of(task: str) -> Iterator[tuple[GlueTask, GlueSplit]]:
    """What the student of a task predicts."""
    owners = (get_task(task), AX) if task == "mnli" else (get_task(task),)
    return ((owner, split) for owner in owners for split in owner.splits if split.submission_file)


def _content(owner: GlueTask, split: GlueSplit, folder: Path | None) -> tuple[SubmittedFile, str]:
    """The text of one file, and where it is from."""
    path = None if folder is None else folder / str(split.submission_file)
    if path is not None and folder is not None and path.is_file():
        text = path.read_text(encoding="utf-8")
        num_rows = text.count("\n") - 1
        if num_rows == split.num_rows:
            return SubmittedFile(owner.name, run="/".join(folder.parts[-3:-1])), text
        reason = f"the test rows are {num_rows:,} and not {split.num_rows:,}"
    elif folder is not None:
        reason = f"the data have no test rows for it ({owner.folders[0]}/{split.file})"
    else:
        reason = f"no student of {'mnli' if owner is AX else owner.name} was made"
    answer = _ANSWERS[owner.name]
    rows = "".join(f"{index}\t{answer}\n" for index in range(split.num_rows))
    return SubmittedFile(owner.name, answer=answer, reason=reason), f"index\tprediction\n{rows}"
