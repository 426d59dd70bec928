"""Recipes of task-agnostic distillation: what is filled in, and what is refused, in words."""

import subprocess
import sys

import pytest
import yaml

from distilbert_kd.deep_terms import Term
from distilbert_kd.errors import RecipeError
from distilbert_kd.pretraining.recipe import load_pretraining_recipe
from distilbert_kd.recipe_parts import as_terms


GOOD = {"text": {"files": ["a.txt"]}, "teacher": {"model": "some/model"}}


def load(folder, values, *overrides):
    path = folder / "general.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_pretraining_recipe(path, overrides)


def test_the_defaults_are_those_of_the_paper(tmp_path):
    """Prevents a recipe that names nothing from being another experiment than DistilBERT's."""
    recipe = load(tmp_path, GOOD)
    objective = recipe.objective
    assert (objective.soft_targets, objective.masked_language_model, objective.temperature) == (5.0, 2.0, 2.0)
    assert objective.terms == {"hidden_cosine": 1.0}
    assert objective.masking_probability == 0.15
    assert (recipe.name, recipe.output_dir) == ("general", "runs/general")
    assert (recipe.text.packing, recipe.text.max_length) == ("blocks", 512)


def test_what_is_written_is_read_again(tmp_path):
    """Prevents a run folder whose recipe is another one, or none."""
    terms = {"value_relation": {"weight": 1.0, "layers": [[0, 2]], "num_relation_heads": 4}, "hidden_mse": 0.5}
    recipe = load(tmp_path, {**GOOD, "objective": {"soft_targets": 0, "terms": terms}, "training": {"max_steps": 3}})
    path = tmp_path / "again.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_pretraining_recipe(path) == recipe
    assert as_terms(recipe.objective.terms) == {
        "value_relation": Term(weight=1.0, layers=[[0, 2]], num_relation_heads=4),
        "hidden_mse": Term(weight=0.5),
    }


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"text": {}}, "text: expected one source"),
        ({"text": {"files": ["a"], "datasets": [{"dataset": "b"}]}}, "got files and datasets"),
        ({"text": {"files": "a.txt"}}, 'text.files: expected a list, got "a.txt"; write ["a.txt"]'),
        ({"text": {"datasets": "b"}}, 'text.datasets: expected a list, got "b"; write [{dataset: "b"}]'),
        ({"text": {"datasets": [{"dataset": "b", "name": "c"}]}}, "text.datasets[0].name"),
        ({"text": {"files": ["a"], "packing": "block"}}, "did you mean blocks?"),
        ({"text": {"files": ["a"], "max_lenght": 8}}, "did you mean text.max_length?"),
        ({"teacher": {"model": "package:x", "revision": "1"}}, "not allowed with a package"),
        ({"objective": {"soft_targets": 0, "masked_language_model": 0, "terms": {}}}, "a term with a weight above 0"),
        ({"objective": {"soft_targets": -1}}, "objective.soft_targets: expected a number, at least 0"),
        ({"objective": {"terms": {"hidden_cosin": 1.0}}}, "objective.terms.hidden_cosin"),
        ({"training": {"eval_strategy": "epoch"}}, "training.eval_strategy"),
        ({"training": {"learning_rat": 1}}, "did you mean training.learning_rate?"),
        ({"data": {}}, "unknown key"),
    ],
)
def test_mistakes_are_named(tmp_path, section, message):
    """Prevents a key that nobody reads, and a message that doesn't say where to look."""
    with pytest.raises(RecipeError) as error:
        load(tmp_path, {**GOOD, **section})
    assert message in str(error.value)
    assert "docs/pretraining.md" in str(error.value)


def test_a_task_recipe_is_refused_in_words(tmp_path):
    """Prevents `pretrain recipes/glue/rte.yaml` from ending in a traceback."""
    with pytest.raises(RecipeError, match="`distilbert-kd run`"):
        load(tmp_path, {"data": {"task": "rte"}, "teacher": {"model": "x"}})


def test_overrides_win(tmp_path):
    """Prevents an override that is checked by other rules than the file."""
    recipe = load(tmp_path, GOOD, "objective.terms.hidden_cosine=0", "training.max_steps=7", "student.layers=[0, 3]")
    assert recipe.objective.terms == {"hidden_cosine": 0}
    assert recipe.training == {"max_steps": 7}
    assert recipe.student.layers == [0, 3]


def test_checking_a_recipe_imports_no_torch():
    """Prevents seconds of waiting before a mistake is named."""
    code = "import sys, distilbert_kd.pretraining.recipe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
