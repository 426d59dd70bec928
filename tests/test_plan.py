"""The plan of a recipe against what a run then does."""

import re

import pytest
from typer.testing import CliRunner

from distilbert_kd.cli import app
from distilbert_kd.errors import DistillationError
from distilbert_kd.plan import describe
from distilbert_kd.plan_lines import num_training_steps
from distilbert_kd.recipe import load_recipe
from distilbert_kd.student.build import build_student
from distilbert_kd.trainer import DistillationTrainer
from tests.tiny import tiny_bert
from tests.tiny_runs import save_tiny_base, write_recipe
from tests.training_rows import arguments, collator, pair_rows, quiet


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    return write_recipe(folder, save_tiny_base(folder / "base"))


def test_it_says_of_how_many_rows_some_are_drawn(recipe_file):
    """Prevents a score on a sample from being taken for one on the split."""
    text = describe(load_recipe(recipe_file, ["data.max_validation_rows=10"]))
    assert re.search(r"^rows +train 64, validation 10 of 24$", text, re.MULTILINE)


def test_it_says_what_will_be_done(recipe_file):
    """Prevents a run of hours that was not meant: another map, another number of steps, another objective."""
    text = describe(load_recipe(recipe_file, ["distillation.alpha=0.7"]))
    student = build_student(tiny_bert(4), 2)
    for line in (
        r"^rows +train 64, validation 24$",
        r"^teacher .*4 layers x 32, " + f"{tiny_bert(4).num_parameters():,}",
        r"fine-tuned first, on the labels: 8 epochs, 64 steps of 8 rows",
        f"^student .*2 layers x 32, {student.num_parameters():,} parameters",
        r"^layer map +0 from 0, 1 from 2 of the teacher \(alternate\)$",
        r"^objective +0.3 \* hard_loss \+ 0.7 \* soft_loss\(T = 2\)$",
        r"^soft targets +the teacher is asked once for each row",
        r"^training +3 epochs, 24 steps of 8 rows, learning rate 0.003$",
        r"^control +the same student on hard labels alone",
    ):
        assert re.search(line, text, re.MULTILINE), (line, text)


def test_it_names_the_layers_that_each_term_compares(recipe_file):
    """Prevents an off-by-one in a recipe's pairs from being found by nobody."""
    terms = "distillation.terms={hidden_mse: {weight: 2, layers: uniform_and_embeddings}, key_relation: 0.5}"
    text = describe(load_recipe(recipe_file, [terms, "student.architecture=distilbert", "control=false"]))
    assert "hidden_mse    weight 2; student and teacher layers embeddings with embeddings, 0 with 1, 1 with 3" in text
    assert "key_relation  weight 0.5; student and teacher layers 1 with 3; 2 heads" in text
    assert "+ 2 * hidden_mse + 0.5 * key_relation" in text
    assert "asked at each step, because the terms read its layers" in text
    assert "DistilBertForSequenceClassification" in text


@pytest.mark.parametrize(
    "override",
    [
        "distillation.terms={hidden_mse: {weight: 1, layers: [[0, 4]]}}",
        "student.num_layers=5",
        "teacher.model=no/where",
    ],
)
def test_what_can_not_be_is_found_without_weights(recipe_file, override, monkeypatch):
    """Prevents a plan that a run then refuses."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DistillationError, match="expected|Expected"):
        describe(load_recipe(recipe_file, [override]))


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_steps": 7}, {"dataloader_drop_last": True}, {"num_train_epochs": 0.5}, {"num_train_epochs": 3}],
)
@pytest.mark.parametrize(("batch_size", "accumulation"), [(32, 1), (8, 3)])
def test_steps_are_those_of_the_trainer(tmp_path, settings, batch_size, accumulation):
    """Prevents a plan with other steps than the run: of the last, partial batch, or of accumulation."""
    settings = arguments(tmp_path, batch_size, accumulation, **{"num_train_epochs": 1, **settings})
    trainer = DistillationTrainer(
        model=tiny_bert(1), args=settings, train_dataset=pair_rows(70), data_collator=collator(), alpha=0.0
    )
    quiet(trainer).train()
    assert trainer.state.max_steps == num_training_steps(settings, 70)


def test_the_command_prints_it(recipe_file):
    """Prevents a plan that nobody can ask for."""
    result = CliRunner().invoke(app, ["describe", str(recipe_file), "seed=7"])
    assert result.exit_code == 0
    assert "seed 7" in result.stdout
