"""Predictions for a file: the forms, the order of the rows, and that nothing is overwritten or left half written."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distilbert_kd import prediction
from distilbert_kd.data.tasks import TASKS
from distilbert_kd.errors import DataError, StorageError
from distilbert_kd.finished_run import predict_with
from distilbert_kd.prediction import PredictionRequest, predict_file
from distilbert_kd.prepared_arguments import prediction_arguments
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.tiny_runs import review_rows, write_jsonl


AWKWARD = [
    'he said "good", twice',
    "two\nlines",
    "a\ttab, and a comma",
    "it's 'quoted'",
    "carriage\rreturn",
    "",
    "naïve – 電影",
    "null",
    "=1+1",
]


@pytest.fixture
def predict(tmp_path):
    """Predicts a file with a tiny classifier; keyword arguments are those of the request."""

    def call(source: Path, num_labels: int = 2, model=None, **request) -> Path:
        fields = {
            "output": None,
            "folder": tmp_path / "predictions",
            "task": None,
            "text": "text",
            "text_pair": None,
            "max_length": 32,
            **request,
        }
        arguments = prediction_arguments({"use_cpu": True, "per_device_eval_batch_size": 4}, "", tmp_path, False)
        model = model or tiny_bert(num_labels=num_labels)
        written, num_rows = predict_file(model, tiny_tokenizer(), PredictionRequest(source, **fields), arguments)
        assert num_rows > 0
        return written

    return call


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_glue(folder: Path, task: str, split: str, rows: list[list[str]]) -> Path:
    """A file as the benchmark gives it: tabs, no quotes, the header of the split."""
    described = next(each for each in TASKS[task].splits if each.name == split)
    lines = [described.columns, *rows] if described.has_header else rows
    path = folder / described.file
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    return path


def glue_rows(task: str, split: str, texts: list[tuple[str, ...]]) -> list[list[str]]:
    """Rows with their texts in the right columns, numbered from 10, and something in the other columns."""
    described = next(each for each in TASKS[task].splits if each.name == split)
    values = [
        {
            TASKS[task].index: str(10 + i),
            TASKS[task].text: text[0],
            **({TASKS[task].text_pair: text[-1]} if TASKS[task].text_pair else {}),
        }
        for i, text in enumerate(texts)
    ]
    return [[value.get(column, "x") for column in described.columns] for value in values]


class TestPlainForms:
    def test_csv(self, predict, tmp_path):
        # A file that a spreadsheet or pandas reads back as other texts is worse than none.
        source = write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in AWKWARD])
        written = predict(source)
        assert written == tmp_path / "texts.predictions.csv"
        rows = read_csv(written)
        assert [row["text"] for row in rows] == AWKWARD
        assert list(rows[0]) == ["text", "prediction", "probability_LABEL_0", "probability_LABEL_1"]
        for row in rows:
            shares = [float(row["probability_LABEL_0"]), float(row["probability_LABEL_1"])]
            assert sum(shares) == pytest.approx(1.0, abs=2e-6)
            assert row["prediction"] == f"LABEL_{int(np.argmax(shares))}"

    def test_json_lines(self, predict, tmp_path):
        source = write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in AWKWARD])
        written = predict(source, output=tmp_path / "made" / "here.jsonl")
        rows = [json.loads(line) for line in written.read_text("utf-8").split("\n")[:-1]]
        assert [row["text"] for row in rows] == AWKWARD
        assert isinstance(rows[0]["probability_LABEL_0"], float)

    def test_a_file_can_be_read_again(self, predict, tmp_path):
        # Our own reader must take our own file, awkward texts included.
        source = write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in AWKWARD])
        again = predict(predict(source), output=tmp_path / "again.csv")
        assert read_csv(again) == read_csv(tmp_path / "texts.predictions.csv")

    def test_numbers(self, predict, tmp_path):
        source = write_jsonl(tmp_path / "texts.jsonl", review_rows(5))
        rows = read_csv(predict(source, num_labels=1))
        assert list(rows[0]) == ["text", "prediction"]
        assert all(np.isfinite(float(row["prediction"])) for row in rows)

    def test_pairs(self, predict, tmp_path):
        # A model of pairs that sees the first text alone answers at random.
        pairs = [{"a": "the film", "b": "is good"}, {"a": "the film", "b": "is very bad and dull"}]
        source = write_jsonl(tmp_path / "texts.jsonl", pairs)
        rows = read_csv(predict(source, text="a", text_pair="b"))
        assert [(row["text"], row["text_pair"]) for row in rows] == [(pair["a"], pair["b"]) for pair in pairs]
        assert rows[0]["probability_LABEL_0"] != rows[1]["probability_LABEL_0"]

    def test_the_order_of_the_rows(self, predict, tmp_path):
        # Batches of similar lengths must not become the order of the answers.
        rows = [{"text": " ".join(["good"] * length)} for length in (9, 1, 30, 2, 14, 1, 22, 5, 3, 17, 8)]
        model = tiny_bert()
        written = read_csv(predict(write_jsonl(tmp_path / "texts.jsonl", rows), model=model))
        tokenizer = tiny_tokenizer()
        for row, answer in zip(rows, written, strict=True):
            with torch.inference_mode():
                inputs = tokenizer(row["text"], return_tensors="pt", truncation=True, max_length=32)
                shares = model(**inputs).logits.softmax(-1)[0]
            assert float(answer["probability_LABEL_1"]) == pytest.approx(shares[1].item(), abs=2e-6)


class TestSubmission:
    def test_words_and_numbers_of_the_rows(self, predict, tmp_path):
        # The server refuses class numbers for RTE, and takes rows by their index.
        texts = [("the film is good", "good film"), ('a "tab"', "no plot"), ("slow", "fast")]
        written = predict(write_glue(tmp_path, "rte", "test", glue_rows("rte", "test", texts)), task="rte")
        assert written == tmp_path / "predictions" / "RTE.tsv"
        lines = written.read_text("utf-8").splitlines()
        assert lines[0] == "index\tprediction"
        assert [line.split("\t")[0] for line in lines[1:]] == ["10", "11", "12"]
        assert {line.split("\t")[1] for line in lines[1:]} <= {"entailment", "not_entailment"}

    def test_too_few_rows_for_the_server(self, predict, tmp_path, caplog):
        # The server refuses a submission that lacks rows, hours later and with few words.
        predict(write_glue(tmp_path, "rte", "test", glue_rows("rte", "test", [("good", "bad")])), task="rte")
        assert "3,000 rows" in caplog.text

    def test_scores_stay_within_the_range(self, predict, tmp_path):
        # The server refuses a whole STS-B file for one score above 5.
        model = tiny_bert(num_labels=1)
        torch.nn.init.zeros_(model.classifier.weight)
        path = write_glue(tmp_path, "stsb", "test", glue_rows("stsb", "test", [("a film", "a movie")] * 3))
        for bias, expected in ((7.0, "5.000"), (-1.0, "0.000"), (2.34567, "2.346")):
            torch.nn.init.constant_(model.classifier.bias, bias)
            written = predict(path, model=model, task="stsb", output=tmp_path / f"{expected}.tsv")
            assert [line.split("\t")[1] for line in written.read_text("utf-8").splitlines()[1:]] == [expected] * 3

    @pytest.mark.parametrize(
        ("task", "split", "file"),
        [
            ("mnli", "test_matched", "MNLI-m.tsv"),
            ("mnli", "test_mismatched", "MNLI-mm.tsv"),
            ("cola", "test", "CoLA.tsv"),
            ("sst2", "test", "SST-2.tsv"),
            ("mrpc", "test", "MRPC.tsv"),
            ("qnli", "test", "QNLI.tsv"),
            ("qqp", "test", "QQP.tsv"),
            ("wnli", "test", "WNLI.tsv"),
        ],
    )
    def test_the_name_that_the_server_wants(self, predict, tmp_path, task, split, file):
        # A zip with another name in it scores zero for the task.
        path = write_glue(tmp_path, task, split, glue_rows(task, split, [("good", "bad"), ("film", "plot")]))
        written = predict(path, num_labels=len(TASKS[task].label_names), task=task)
        assert written.name == file
        words = {line.split("\t")[1] for line in written.read_text("utf-8").splitlines()[1:]}
        assert words <= set(TASKS[task].submission_labels)

    def test_ax_goes_with_the_model_of_mnli(self, predict, tmp_path):
        path = write_glue(tmp_path, "ax", "ax", glue_rows("ax", "ax", [("good", "bad")] * 2))
        written = predict(path, num_labels=3, task="mnli")
        assert written.name == "AX.tsv"
        assert written.read_text("utf-8").splitlines()[1].split("\t")[0] == "10"

    def test_a_glue_file_in_a_plain_form(self, predict, tmp_path):
        # The numbers of the rows are what a user joins the predictions with.
        path = write_glue(tmp_path, "rte", "test", glue_rows("rte", "test", [("good", "bad"), ("film", "plot")]))
        rows = read_csv(predict(path, task="rte", output=tmp_path / "plain.csv"))
        assert [row["index"] for row in rows] == ["10", "11"]
        assert [row["text_pair"] for row in rows] == ["bad", "plot"]

    def test_a_file_of_ones_own_is_no_submission(self, predict, tmp_path):
        source = write_jsonl(tmp_path / "test.jsonl", [{"text": "good", "text_pair": "bad"}])
        assert predict(source, task="rte", text_pair="text_pair").name == "test.predictions.csv"


class TestOutput:
    def test_nothing_is_overwritten(self, predict, tmp_path):
        source = write_jsonl(tmp_path / "texts.jsonl", review_rows(3))
        (tmp_path / "texts.predictions.csv").write_text("mine")
        with pytest.raises(StorageError, match=r"texts\.predictions\.csv.*there already.*--output"):
            predict(source)
        assert (tmp_path / "texts.predictions.csv").read_text() == "mine"

    def test_a_file_that_appears_meanwhile_is_not_overwritten(self, predict, tmp_path, monkeypatch):
        # Two runs of predict at once: the check at the start is passed by both.
        source = write_jsonl(tmp_path / "texts.jsonl", review_rows(3))
        predict_logits = prediction.predict_logits

        def slow(*args):
            (tmp_path / "texts.predictions.csv").write_text("mine")
            return predict_logits(*args)

        monkeypatch.setattr(prediction, "predict_logits", slow)
        with pytest.raises(StorageError, match=r"texts\.predictions\.csv, got: a file is in the way"):
            predict(source)
        assert (tmp_path / "texts.predictions.csv").read_text() == "mine"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.jsonl", "texts.predictions.csv"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
    def test_an_interrupted_write_leaves_nothing(self, predict, tmp_path, monkeypatch, error):
        # Half a file under the final name would be submitted, or read as all there is.
        source = write_jsonl(tmp_path / "texts.jsonl", review_rows(3))
        plain = prediction._plain

        def stop(*args):
            yield next(plain(*args))
            raise error

        monkeypatch.setattr(prediction, "_plain", stop)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else StorageError):
            predict(source, output=tmp_path / "out.jsonl")
        assert [path.name for path in tmp_path.iterdir()] == ["texts.jsonl"]

    def test_a_file_system_without_links(self, predict, tmp_path, monkeypatch):
        # Shared and USB disks often have none.
        def refuse(*args, **kwargs):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr("os.link", refuse)
        source = write_jsonl(tmp_path / "texts.jsonl", review_rows(3))
        assert len(read_csv(predict(source))) == 3
        assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.jsonl", "texts.predictions.csv"]

    @pytest.mark.parametrize("name", ["out.txt", "out.tsv", "out"])
    def test_an_unknown_ending(self, predict, tmp_path, name):
        # A .tsv of our own making would be taken for a submission.
        source = write_jsonl(tmp_path / "texts.jsonl", review_rows(3))
        with pytest.raises(DataError, match=r"\.csv or \.jsonl"):
            predict(source, output=tmp_path / name)

    def test_a_folder_that_is_a_file(self, predict, tmp_path):
        source = write_jsonl(tmp_path / "texts.jsonl", review_rows(3))
        with pytest.raises(StorageError, match="a file is in the way"):
            predict(source, output=source / "out.csv")


class TestInput:
    def test_a_missing_column(self, predict, tmp_path):
        # The message must name the columns that are there, so that the user can pick one.
        source = write_jsonl(tmp_path / "texts.jsonl", [{"review": "good", "stars": "5"}])
        with pytest.raises(DataError, match="columns text; got 'review', 'stars'"):
            predict(source)

    @pytest.mark.parametrize("content", ["", "\n", "text\n"])
    def test_a_file_without_rows(self, predict, tmp_path, content):
        path = tmp_path / "texts.csv"
        path.write_text(content)
        with pytest.raises(DataError, match=r"texts\.csv.*expected rows"):
            predict(path)

    def test_no_such_file(self, predict, tmp_path):
        with pytest.raises(DataError, match="expected a file"):
            predict(tmp_path / "texts.csv")


class TestModelFolder:
    def test_a_plain_model_folder(self, tmp_path):
        # Predictions must not need a run: any fine-tuned classifier will do.
        model = tiny_bert()
        model.config.id2label, model.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
        model.save_pretrained(tmp_path / "model")
        tiny_tokenizer(tmp_path / "model")
        source = write_jsonl(tmp_path / "texts.jsonl", review_rows(3))
        written, num_rows = predict_with(str(tmp_path / "model"), source, max_length=32, batch_size=2)
        assert num_rows == 3
        rows = read_csv(written)
        assert set(rows[0]) == {"text", "prediction", "probability_no", "probability_yes"}
        assert {row["prediction"] for row in rows} <= {"no", "yes"}
