"""The plan of a pretraining recipe against what the run then does."""

import re

import pytest
from typer.testing import CliRunner

from distilbert_kd.cli import app
from distilbert_kd.errors import DistillationError, TeacherError
from distilbert_kd.pretraining.pipeline import pretrain
from distilbert_kd.pretraining.plan import describe_pretraining
from distilbert_kd.pretraining.recipe import load_pretraining_recipe
from tests.pretraining.language_models import tiny_masked_lm
from tests.pretraining.test_pipeline import HEADLESS, teachers, write_recipe  # noqa: F401 (a fixture)


def line(text, name):
    return re.search(rf"^{name} +(.*)$", text, re.MULTILINE).group(1)


def test_it_says_what_is_then_done(teachers, tmp_path):  # noqa: F811
    """Prevents a run of days that was not meant: other text, other layers, another objective, other steps."""
    recipe = load_pretraining_recipe(write_recipe(tmp_path, teachers / "mlm"))
    before = describe_pretraining(recipe)
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()
    assert line(before, "rows").startswith("counted when the text is tokenised")
    assert line(before, "training") == "2 epochs of 8 rows a step, learning rate 0.001"
    results = pretrain(recipe)
    after = describe_pretraining(recipe)
    assert line(after, "rows").startswith(f"{results['text']['rows']} of {results['text']['tokens']:,} tokens")
    assert f"2 epochs, {results['steps']} steps of 8 rows" in line(after, "training")
    assert f"{results['student']['num_parameters']:,} parameters" in line(after, "student")
    assert f"{tiny_masked_lm().num_parameters():,} parameters" in line(after, "teacher")
    pairs = ", ".join(f"{i} from {layer}" for i, layer in enumerate(results["student"]["layers"]))
    assert line(after, "layer map").startswith(pairs)
    assert line(after, "objective") == "5 * soft_targets(T = 2) + 2 * masked_language_model + 1 * hidden_cosine"
    assert list(results["objective"].values()) == [5.0, 2.0, 1.0]
    assert line(after, "masking").startswith("15% of the tokens")


def test_a_teacher_without_a_head(teachers, tmp_path):  # noqa: F811
    """Prevents a plan that speaks of masks and soft targets where there are none."""
    path = write_recipe(tmp_path, teachers / "encoder", objective=HEADLESS)
    result = CliRunner().invoke(app, ["describe", str(path), "text.max_rows=20"])
    assert result.exit_code == 0, result.stderr
    assert line(result.stdout, "objective") == "1 * hidden_mse + 0.5 * query_relation"
    assert line(result.stdout, "masking").startswith("none")
    assert "20 at most" in line(result.stdout, "rows")
    assert line(result.stdout, "  hidden_mse") == "weight 1; student and teacher layers 0 with 1, 1 with 3"


@pytest.mark.parametrize(
    "override", ["text.files=[no.txt]", "student.num_layers=9", "teacher.model=no/where", "text.max_length=600"]
)
def test_what_can_not_be_is_found_at_once(teachers, tmp_path, override, monkeypatch):  # noqa: F811
    """Prevents a plan that a run then refuses."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DistillationError, match="expected|Expected"):
        describe_pretraining(load_pretraining_recipe(write_recipe(tmp_path, teachers / "mlm"), [override]))


def test_a_head_that_would_be_random_is_refused(teachers, tmp_path):  # noqa: F811
    """Prevents the plan of a run that is then refused: the config says that the checkpoint has no such head."""
    with pytest.raises(TeacherError, match="got BertModel: the head would be random"):
        describe_pretraining(load_pretraining_recipe(write_recipe(tmp_path, teachers / "encoder")))
