"""The written shape of results.json is the one that runs write."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from distilbert_kd.results_schema import Results, results_schema
from tests.report.fake_runs import fake_run
from tests.schema_keys import unnamed


SCHEMA = Path(__file__).parents[1] / "docs" / "results.schema.json"


def test_the_file_in_docs_is_the_schema():
    """Tools read the file; one that lags behind refuses good runs."""
    assert json.loads(SCHEMA.read_text("utf-8")) == results_schema()


def test_a_record_is_valid_and_every_key_is_named(tmp_path):
    """A key that nobody wrote down is no contract."""
    record = json.loads((fake_run(tmp_path / "run") / "results.json").read_text("utf-8"))
    assert unnamed(Results.model_validate(record)) == []
    record["models"]["student"]["splits"]["validation"]["guess"] = 1
    assert unnamed(Results.model_validate(record)) == [".models.student.splits.validation.guess"]


@pytest.mark.parametrize("score", [84.5, "high", None])
def test_percentages_and_gaps_are_refused(tmp_path, score):
    """A score of 84.5 read as a fraction would be shown as 8450 %."""
    record = json.loads((fake_run(tmp_path / "run") / "results.json").read_text("utf-8"))
    record["models"]["teacher"]["splits"]["validation"]["score"] = score
    with pytest.raises(ValidationError):
        Results.model_validate(record)
