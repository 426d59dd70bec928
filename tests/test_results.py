"""The printed table: right numbers under right heads, readable, and honest about what is missing."""

import copy
import re
from typing import Any

import pytest

from distilbert_kd.results import render_markdown, render_table


def _model(num_layers: int, num_parameters: int, ms: dict[str, float] | None, split: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "base/teacher",
        "num_layers": num_layers,
        "num_parameters": num_parameters,
        "size_mb": num_parameters * 4 / 1e6,
        "latency_ms": ms,
        "splits": {"validation": split},
    }


def _split(score: float, metrics: dict[str, float], calibration: float | None, near: dict | None) -> dict[str, Any]:
    return {"score": score, "metrics": metrics, "num_rows": 1408, "calibration_error": calibration, "fidelity": near}


@pytest.fixture
def results() -> dict[str, Any]:
    near = {"agreement": 0.912, "kl_nats": 0.0456, "mean_squared_difference": None, "pearson": None}
    teacher = _split(0.88, {"accuracy": 0.86, "f1": 0.90}, 0.051, None)
    student = _split(0.85, {"accuracy": 0.83, "f1": 0.87}, 0.072, near)
    control = _split(0.825, {"accuracy": 0.80, "f1": 0.85}, 0.093, {**near, "agreement": 0.877, "kl_nats": 0.1234})
    return {
        "schema_version": 1,
        "name": "mrpc",
        "task": "mrpc",
        "metric": "mrpc",
        "score_name": "mean of F1 and accuracy",
        "data": {"source": "GLUE", "notes": ["a subset"], "rows": {"train": 3668, "validation": 1408}},
        "student": {"layers": [0, 2, 4]},
        "distillation": {"temperature": {"start": 5.0, "end": 1.0, "shape": "linear"}, "alpha": 0.5},
        "seed": 42,
        "models": {
            "teacher": _model(6, 109_500_000, {"1": 4.0, "32": 2.0}, teacher),
            "student": _model(3, 66_000_000, {"1": 2.0, "32": 0.8}, student),
            "control": _model(3, 66_000_000, {"1": 2.1, "32": 1.0}, control),
        },
        "seconds": {"teacher": 100.0, "distillation": 50.0, "control": None, "total": 1501.0},
    }


def _cells(text: str, arm: str) -> list[list[str]]:
    """The cells of each table's row of a model, out of the terminal text."""
    return [line.split()[1:] for line in text.splitlines() if line.startswith(arm)]


def test_rows_hold_the_right_numbers(results: dict[str, Any]) -> None:
    """A column shifted by one, or retention against the control, would still look like a table."""
    text = render_table(results)
    models, validation = _cells(text, "student")
    assert models == ["3", "66.0", "264.0", "2.00", "0.800", "2.00x", "2.50x"]
    assert validation == ["85.0", "83.0", "87.0", "96.6", "91.2", "0.046", "7.2"]
    assert _cells(text, "teacher")[1] == ["88.0", "86.0", "90.0", "100.0", "-", "-", "5.1"]
    assert _cells(text, "control")[1] == ["82.5", "80.0", "85.0", "93.8", "87.7", "0.123", "9.3"]


def test_lines_under_the_table(results: dict[str, Any]) -> None:
    """Student minus control is the number that the control was trained for: points of the score, with a sign."""
    text = render_table(results)
    for line in (
        "Student minus control on validation: +2.5 points; report.md says whether these rows tell them apart.",
        "Layers: student 0, 1, 2 from teacher 0, 2, 4.",
        "Distillation: T = 5 to 1 (linear), alpha = 0.5.",
        "Seed: 42 (one run; the spread between seeds is not measured).",
        "Data: GLUE; rows: train 3,668, validation 1,408.",
        "Note: a subset",
        "Time: teacher 100 s, distillation 50 s, total 1,501 s.",
    ):
        assert line in text.splitlines()
    results["models"]["student"]["splits"]["validation"]["score"] = 0.80
    assert "on validation: -2.5 points; " in render_table(results)


def test_missing_control_is_said(results: dict[str, Any]) -> None:
    """Without the control the retention alone would be read as the teacher's merit."""
    del results["models"]["control"]
    text = render_table(results)
    assert text.count("No control was trained") == 1 and "points" not in text
    assert _cells(text, "control") == []


def test_each_split_has_its_table(results: dict[str, Any]) -> None:
    """MNLI has two: the mismatched split must not be dropped or overwrite the matched one."""
    for model in results["models"].values():
        model["splits"]["test"] = copy.deepcopy(model["splits"]["validation"]) | {"num_rows": 77}
    results["models"]["student"]["splits"]["test"]["score"] = 0.5
    text = render_table(results)
    assert "validation, 1,408 rows" in text and "test, 77 rows" in text
    assert [row[0] for row in _cells(text, "student")] == ["3", "50.0", "85.0"]  # the headline is that of test
    assert "on test: -32.5 points; " in text


def test_regression_shows_no_class_numbers(results: dict[str, Any]) -> None:
    """An agreement of 100 % and a KL of 0 over one output would look like a perfect student."""
    results.update(metric="stsb", score_name="mean of Pearson and Spearman correlation")
    near = {"agreement": None, "kl_nats": None, "mean_squared_difference": 0.0456, "pearson": 0.953}
    for arm, model in results["models"].items():
        model["splits"]["validation"] = _split(
            0.85, {"pearson": 0.86, "spearmanr": 0.84}, None, None if arm == "teacher" else near
        )
    text = render_table(results)
    assert _cells(text, "student")[1] == ["85.0", "86.0", "84.0", "100.0", "0.046", "95.3"]
    assert "%" not in text.split("validation, ")[1].splitlines()[2].split("(%)")[0]
    assert max(map(len, text.splitlines())) <= 100


def test_a_single_metric_is_not_shown_twice_and_correlations_are_no_percentage(results: dict[str, Any]) -> None:
    """Two equal columns waste width; a Matthews correlation with a percent sign is read as an accuracy."""
    results.update(metric="cola", score_name="Matthews correlation")
    for model in results["models"].values():
        model["splits"]["validation"]["metrics"] = {"matthews_correlation": 0.85}
    text = render_table(results)
    assert _cells(text, "student")[1] == ["85.0", "96.6", "91.2", "0.046", "7.2"]
    assert text.split("validation, 1,408 rows\n")[1].splitlines()[1].split()[0] == "(x100)"


def test_missing_values_are_dashes(results: dict[str, Any]) -> None:
    """A run evaluated without timing, or a teacher with a score of zero, must not break the report at the end."""
    results["models"]["control"]["latency_ms"] = None
    for model in results["models"].values():
        model["splits"]["validation"]["calibration_error"] = None
    results["models"]["teacher"]["splits"]["validation"]["score"] = 0.0
    text = render_table(results)
    assert _cells(text, "control")[0][3:] == ["-", "-", "-", "-"]
    assert _cells(text, "student")[1][3] == "-" and _cells(text, "student")[1][-1] == "-"
    results["models"]["teacher"]["latency_ms"] = None
    assert "batch" not in render_table(results)


def test_terminal_lines_fit_100_columns_and_align(results: dict[str, Any]) -> None:
    """A wrapped table is unreadable."""
    results["data"]["notes"] = ["word " * 60]
    text = render_table(results)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    rows = [line for line in lines if line.startswith(("teacher", "student", "control"))]
    assert {len(line) for line in rows[:3]} == {len(lines[lines.index(rows[0]) - 1])}


def test_markdown_has_the_same_cells_as_the_terminal(results: dict[str, Any]) -> None:
    """Two renderers that drift apart publish two results."""
    results["name"] = "mrpc"
    text, markdown = render_table(results), render_markdown(results)
    for arm in ("teacher", "student", "control"):
        rows = [line for line in markdown.splitlines() if line.startswith(f"| {arm} ")]
        assert [[cell.strip() for cell in row.strip("|").split("|")][1:] for row in rows] == _cells(text, arm)
    tables = [block for block in markdown.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "- Student minus control on validation: +2.5 points; report.md says " in markdown
    assert "Control: the same student, trained on the labels alone" in markdown.split("## validation")[0]


def test_markdown_shows_names_and_reads_none_of_them(results: dict[str, Any]) -> None:
    """A name from someone else's data that is a link or a picture makes whoever opens the table ask a stranger."""
    results["name"] = "<script>x</script> ![p](https://evil.example/p.png)"
    results["data"]["notes"] = ["class [click](javascript:x) and \\[again](https://evil.example)"]
    markdown = render_markdown(results)
    assert "<script" not in markdown
    assert re.findall(r"(?<!\\)(?:\\\\)*\[", markdown) == []  # no bracket that is not escaped


def test_times_have_their_spread(results: dict[str, Any]) -> None:
    """A time without its spread looks exact, on a machine that others shared too; and the table must still fit."""
    for model in results["models"].values():
        model["latency_ms"] = {"1": 13.788, "32": 142.21}
        model["latency_quartiles_ms"] = {"1": [12.96, 14.449], "32": [138.7, 151.2]}
    results["latency_setting"] = {"device": "cpu", "num_threads": 2, "num_rounds": {"1": 50, "32": 12}}
    text = render_table(results)
    (row,) = [line for line in text.splitlines() if line.startswith("student") and "to" in line]
    assert "  13.8 (13.0 to 14.4)  142 (139 to 151) " in row
    assert "50 at batch 1, 12 at batch 32." in text.replace("\n  ", " ")
    assert max(map(len, text.splitlines())) <= 100


def test_what_makes_the_scores_worthless_comes_first(results: dict[str, Any]) -> None:
    """At the end of the notes it was not read, and a student of a teacher that guesses "keeps 99 % of its score"."""
    for model in results["models"].values():
        model["splits"]["validation"] |= {"constant_score": 0.825, "is_near_chance": False}
    results["models"]["teacher"]["splits"]["validation"]["is_near_chance"] = True
    text, markdown = render_table(results), render_markdown(results)
    first, second = text.split("\n\n")[1:3]
    assert first.startswith("WARNING: The teacher is near chance on validation")
    assert second.startswith("WARNING: The control scores 82.5 on validation, and the same answer for every row 82.5.")
    assert text.count("WARNING") == 2 and "Models" in text.split("\n\n")[3]
    assert markdown.split("\n\n")[1].startswith("> **Warning:** The teacher is near chance")


def test_a_drawn_split_says_of_how_many_rows(results: dict[str, Any]) -> None:
    """A score on a sample of the rows may not stand beside one on all of them."""
    results["data"]["drawn_from"] = {"validation": 5463}
    assert "validation, 1,408 of 5,463 rows" in render_table(results)


def test_a_distilbert_is_called_one(results: dict[str, Any]) -> None:
    """Who asked for a DistilBERT looks for the word, and for the class to load."""
    assert "DistilBERT" not in render_table(results)
    results["models"]["student"]["architecture"] = "DistilBertForSequenceClassification"
    assert "is a DistilBERT: it loads as DistilBertForSequenceClassification" in render_table(results)


def test_layers_of_another_model_are_not_called_the_teachers(results: dict[str, Any]) -> None:
    """A student of two stages starts from the first one's student; "from teacher 0, 1, 2" is another experiment."""
    assert "student 0, 1, 2 from teacher 0, 2, 4." in render_table(results)
    results["student"]["init_from"] = "runs/small/student"
    assert "student 0, 1, 2 from runs/small/student 0, 2, 4." in render_table(results)
