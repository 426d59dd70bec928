"""`submission.zip`: right words in the right files, and nothing in it that nobody hears of."""

import zipfile

import datasets
import pytest
import torch

from distilbert_kd.errors import DataError
from distilbert_kd.glue.submission import predict_test_rows, write_submission_zip
from distilbert_kd.glue.submission_check import validate_submission
from distilbert_kd.prepared_arguments import prediction_arguments
from tests.tiny import tiny_bert, tiny_tokenizer


def always(label: int, num_labels: int):
    """A student that says one label, or of one output its number, to every row."""
    model = tiny_bert(num_layers=1, num_labels=num_labels)
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    with torch.no_grad():
        model.classifier.bias[0 if num_labels == 1 else label] = 7.0
    return model


def rows(number: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"text": ["good film"] * number, "text_pair": ["bad plot"] * number, "index": list(range(number))}
    )


@pytest.fixture
def predict(tmp_path):
    """Predicts the test rows of a task into the `predictions` of a run."""

    def call(task, model, test):
        arguments = prediction_arguments({"use_cpu": True, "per_device_eval_batch_size": 256}, "", tmp_path, False)
        folder = tmp_path / task / "seed-42" / "predictions"
        predict_test_rows(model, tiny_tokenizer(), task, test, 16, arguments, folder)
        return folder

    return call


def words_of(path, name):
    with zipfile.ZipFile(path) as archive:
        lines = archive.read(name).decode().splitlines()
    return {line.split("\t")[1] for line in lines[1:]}


def test_all_eleven_files_and_where_they_are_from(predict, tmp_path, caplog):
    """Prevents a submission that the server refuses, or one answer for all rows that passes for a student's."""
    folders = {
        "wnli": predict("wnli", always(1, 2), {"test": rows(146)}),
        # AX has no student of its own; of the matched rows most are missing, the mismatched ones all.
        "mnli": predict("mnli", always(2, 3), {"test_matched": rows(3), "ax": rows(1104)}),
    }
    path = tmp_path / "submission.zip"
    described = write_submission_zip(path, folders)
    assert validate_submission(path) == []
    assert len(described) == 11
    assert {name for name, each in described.items() if each.run is not None} == {"WNLI.tsv", "AX.tsv"}
    assert words_of(path, "WNLI.tsv") == {"1"} and described["WNLI.tsv"].run == "wnli/seed-42"
    assert words_of(path, "AX.tsv") == {"contradiction"} and described["AX.tsv"].run == "mnli/seed-42"
    assert described["MNLI-m.tsv"].reason == "the test rows are 3 and not 9,796"
    assert described["MNLI-mm.tsv"].reason == "the data have no test rows for it (MNLI/test_mismatched.tsv)"
    assert described["CoLA.tsv"].reason == "no student of cola was made"
    assert words_of(path, "CoLA.tsv") == {described["CoLA.tsv"].answer} == {"1"}
    warned = [record.getMessage() for record in caplog.records if "NOT predicted" in record.getMessage()]
    assert len(warned) == 9
    first = path.read_bytes()
    write_submission_zip(path, folders)
    assert path.read_bytes() == first  # the same answers are the same file


def test_scores_are_clipped(predict):
    """The server refuses a whole STS-B file for one score above 5."""
    folder = predict("stsb", always(0, 1), {"test": rows(2)})
    assert (folder / "STS-B.tsv").read_text("utf-8") == "index\tprediction\n0\t5.000\n1\t5.000\n"


def test_what_is_predicted_is_not_predicted_again(predict):
    """Hours of QQP's 390,965 rows must not be spent twice because another task failed."""
    folder = predict("wnli", always(1, 2), {"test": rows(3)})
    before = (folder / "WNLI.tsv").read_text("utf-8")
    predict("wnli", always(0, 2), {"test": rows(3)})
    assert (folder / "WNLI.tsv").read_text("utf-8") == before


def test_a_wrong_file_never_gets_the_name(predict, tmp_path):
    """Prevents a file that was edited, or is of another task, from being sent; what was there before stays."""
    folder = predict("wnli", always(1, 2), {"test": rows(146)})
    path = tmp_path / "submission.zip"
    path.write_text("the last good one")
    (folder / "WNLI.tsv").write_text((folder / "WNLI.tsv").read_text("utf-8").replace("\t1", "\tentailment"), "utf-8")
    with pytest.raises(DataError, match=r"WNLI\.tsv, line 2: expected 0 or 1, got 'entailment'"):
        write_submission_zip(path, {"wnli": folder})
    assert path.read_text() == "the last good one"
    assert [each.name for each in tmp_path.glob(".*")] == []
