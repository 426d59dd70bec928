"""What people read: the tables in Markdown and LaTeX, the figure, and the written shape of the numbers."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from distilbert_kd.glue.plot import draw_scores
from distilbert_kd.glue.record import Failure, GlueResults, glue_schema
from distilbert_kd.glue.submission import SubmittedFile
from distilbert_kd.glue.summary import summarise
from distilbert_kd.glue.table import latex_text, markdown_text
from distilbert_kd.report.run_reading import read_run
from tests.glue.glue_runs import glue_run


SCHEMA = Path(__file__).parents[2] / "docs" / "glue.schema.json"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """RTE with two seeds, QQP on a part of its rows, and SST-2 that failed."""
    folder = tmp_path_factory.mktemp("glue")
    scores = {
        42: {"teacher": 0.8, "student": 0.7, "control": 0.65},
        43: {"teacher": 0.7, "student": 0.8, "control": 0.7},
    }
    places = {task: [folder / task / f"seed-{seed}" for seed in scores] for task in ("rte", "qqp")}
    runs = {
        "rte": [
            read_run(glue_run(place, "rte", seed, scores[seed]))
            for seed, place in zip(scores, places["rte"], strict=True)
        ],
        "qqp": [read_run(glue_run(places["qqp"][0], "qqp", 42, scores[42]))],
    }
    runs["qqp"][0].results["data"]["rows"]["train"] = 64
    tasks, means = summarise(runs)
    return GlueResults(
        tasks=tasks,
        means=means,
        failures=[Failure(task="sst2", seed=42, error="Expected rows, got none.")],
        submission={
            "RTE.tsv": SubmittedFile("rte", run="rte/seed-43"),
            "AX.tsv": SubmittedFile("ax", answer="entailment", reason="no student of mnli was made"),
        },
    )


def row_of(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_scores(results):
    """Prevents a column under another task's head, and a difference whose sign nobody sees."""
    text = markdown_text(results)
    header = ["", "QQP* (F1 + acc.)/2", "RTE accuracy", "mean without WNLI", "SST-2 FAILED"]
    assert text.splitlines()[4] == f"| {' | '.join(header)} |"
    assert row_of(text, "student") == ["student", "70.0", "75.0 ± 7.1", "70.0", "–"]
    assert row_of(text, "student minus control") == ["student minus control", "+5.0", "+7.5 ± 3.5", "+5.0", "–"]
    assert row_of(text, "retention (%)") == ["retention (%)", "87.5", "100.0", "87.5", "–"]
    assert row_of(text, "seeds (n)") == ["seeds (n)", "1", "2", "1", "–"]
    assert row_of(text, "95 %, over seeds")[1:4] == ["–", "-24.3 to +39.3", "–"]


def test_an_error_is_text():
    """Prevents an error's own words from being read as markup: `<pad>` vanishes from the page."""
    failure = Failure(task="sst2", seed=42, error="Expected [CLS], got <pad>.")
    text = markdown_text(GlueResults(tasks=[], means=[], failures=[failure], submission={}))
    assert "- FAILED: SST-2, seed 42: Expected \\[CLS\\], got &lt;pad>." in text.splitlines()


def test_what_a_reader_must_know(results):
    """Prevents a failed task, a part of the rows, or a file that no student predicted from being overlooked."""
    text = markdown_text(results)
    assert "FAILED: SST-2, seed 42: Expected rows, got none." in text
    assert "QQP*: a SUBSET, not comparable with published scores: train 64, validation 40,430 rows." in text
    assert "AX.tsv is NOT predicted: every row says entailment, because no student of mnli was made." in text
    assert "RTE.tsv by rte/seed-43" in text
    assert "Timed on: cpu, 1 CPU thread(s)." in text


def test_latex_has_the_same_cells(results):
    """Prevents a table that LaTeX can't set, or that says something else than the one in Markdown."""
    text = latex_text(results)
    assert r"student & 70.0 & 75.0 $\pm$ 7.1 & 70.0 & -- \\" in text
    assert r"retention (\%) & 87.5 & 100.0 & 87.5 & -- \\" in text
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    assert not any("±" in line or "–" in line or "%" in line.replace(r"\%", "") for line in lines)
    for table in text.split(r"\begin{tabular}{")[1:]:
        columns = table.partition("}")[0]
        assert {line.count(" & ") for line in table.splitlines() if line.endswith(r"\\")} == {len(columns) - 1}


def test_nothing_but_failures(results):
    """Prevents a traceback in place of the reasons when no task came to an end."""
    text = markdown_text(GlueResults(tasks=[], means=[], failures=results.failures, submission={}))
    assert "SST-2 FAILED" in text and "FAILED: SST-2, seed 42" in text


def test_the_figure(results):
    """Prevents a figure without one of the models."""
    picture = draw_scores(results)
    assert picture.png.startswith(b"\x89PNG")
    assert all(word in picture.svg for word in ("QQP*", "RTE", "teacher", "student", "control"))


def test_the_file_in_docs_is_the_schema():
    """Tools read the file; one that lags behind refuses good tables."""
    assert json.loads(SCHEMA.read_text("utf-8")) == glue_schema()


def test_the_record_survives_json_and_names_every_key(results):
    """A key that nobody wrote down is no contract."""
    record = json.loads(json.dumps(results.model_dump()))
    assert GlueResults.model_validate(record) == results
    record["tasks"][0]["guess"] = 1
    with pytest.raises(ValidationError, match="guess"):
        GlueResults.model_validate(record)
